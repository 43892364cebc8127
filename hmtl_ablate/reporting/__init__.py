"""What the runs in MLflow say: the paper's claims and one table per study, in five formats, and figures.

    results       MLflow → tidy pandas frames
    statistics    means, intervals, paired differences
    tables        one table per study, as numbers
    sequential    the bound of seeds until decided: boundaries, states, what it can decide
    decisions     the comparisons of a study with decide, and their states
    decision_tables  both as tables and records
    registered    what was registered before the first trial, and what has changed
    decomposition where a controlled arm's gain comes from: differences that add up
    verdict       the rule that says whether it helps, and why
    controls      both as tables, sentences and records
    effects       what the components of an ablation design gain: contrasts of its arms
    effect_tables the same as tables and records
    claims        the paper's nine claims and the rule that gives each its status
    columns       the report's columns: to add a statistic, add an entry there
    document      what a format writes: sections of tables of columns × rows
    formats/      one file per format: to add a format, add a file there
    render        results → report → text
    paper_tables  the paper's arguments as tables of their own
    figures       matplotlib figures
    wording       titles, units and sentences
    pages         a folder of JSON files as one Markdown page

This package imports none of them by itself, so that its formats can be named without loading pandas.
"""
