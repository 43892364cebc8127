"""What the runs in MLflow say: the paper's claims and one table a study, in five formats, and figures.

    results     MLflow → tidy pandas frames
    statistics  means, intervals, paired differences
    tables      one table a study
    claims      the paper's nine claims and the rule that gives each its status
    render      all of it as terminal text, Markdown, LaTeX, CSV or JSON
    arguments   the paper's arguments as tables of their own
    figures     matplotlib figures

This package imports none of them by itself, so that its formats can be named without loading pandas.
"""

from __future__ import annotations

from typing import Literal

Format = Literal["terminal", "markdown", "latex", "csv", "json"]
