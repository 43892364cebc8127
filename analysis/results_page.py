"""docs/results.md from the reports in docs/results/: one section per study, each with its answer, a figure and a table.

    hmtl-ablate report --study gender --format json --output docs/results/gender.json
    python analysis/results_page.py docs/results docs/results.md

The figures are written next to the reports, as SVG. A difference is called by the state that the report gives it: the
sequential interval's where seeds were added until decided, and p after Holm otherwise.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text, score_text
from hmtl_ablate.reporting.comparison import ALPHA, same_passes
from hmtl_ablate.reporting.decisions import STOPPING
from hmtl_ablate.reporting.figures.style import COLOURS, GREY, forest, forest_height, new_figure, style, svg, wrapped
from hmtl_ablate.reporting.pages import write_page
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.reporting.wording import label, lower_is_better

SPACES = Path(__file__).parent.parent / "search_spaces"
HEAD = """# Results on stand-in data

Rendered by `python analysis/results_page.py docs/results docs/results.md` from the reports in docs/results/. Small
networks on two CPU cores, on public datasets that are not the paper's: these numbers verify no claim. Each study file,
with its rule and its largest cost, was committed before its first trial, and what came out is here, whatever it says.
Scores are mean ± standard deviation over the seeds. Where seeds were added until decided
([methods.md](methods.md#seeds-until-decided)), the intervals are sequential ones, which hold for all comparisons of a
study together, and the state is the one they give; the test split was looked at for stopping, and nothing was selected
on it. Elsewhere they are 95 % intervals, and the state is that of p after Holm. A difference without an interval was no
declared comparison; pairs are the seeds that it is of. Image passes are per trial and include those of the trials it
started from. Results under older numerics: [results_older.md](results_older.md).
"""
FOREST = """
![{alt}](results/forest.svg)

Every arm of the studies below that was compared at equal image passes; blue where its state is an answer, grey
elsewhere.
"""
CALLED = ("better", "worse", "no difference that matters")
"""States that are an answer."""
OPEN = (
    "Open: the rule asks for more seeds. `hmtl-ablate import docs/results/{name}.hmtl.zip`, then the command above, "
    "continues."
)
STATES = (*CALLED, "not shown to differ", "undecided", "open")

Report = Mapping[str, Any]
"""A study of a report: an object of its list `studies`."""
Panels = Mapping[str, Mapping[str, "Difference"]]
"""A figure's panels: metric → the difference of each line, all of them known."""


@dataclass(frozen=True)
class Difference:
    """One comparison of a report."""

    variant: str
    minus: str
    metric: str
    estimate: Estimate
    """In the metric's own unit."""
    state: str
    equal_passes: bool

    @property
    def name(self) -> str:
        """`SL + puzzling minus SL`; a control that was added to the arm is named without it."""
        return f"{self.variant} minus {self.minus.removeprefix(f'{self.variant}: ')}"

    @property
    def text(self) -> str:
        """The difference with its interval: of percentages in points."""
        return difference_text(self.estimate, in_percent(self.metric))


def page(folder: Path) -> str:
    """The page from every *.json in `folder`, in the order of their names."""
    groups = _groups(folder)
    whole = _alt(_forest(groups))
    missing = [name for name in _awaited() if name not in {group[0]["name"] for group in groups.values()}]
    rest = ["Not trained yet with the present study files: " + ", ".join(missing) + ".", ""] if missing else []
    sections = [_section(title, group) for title, group in groups.items()]
    return "\n".join([HEAD + (FOREST.format(alt=whole) if whole else ""), *rest, *sections])


def figures(folder: Path) -> dict[str, Figure]:
    """The page's figures by file name without its ending: the forest over all studies, then one per study."""
    groups = _groups(folder)
    panels = {"forest": _forest(groups)}
    panels |= {_file(title): _own(group[0]) for title, group in groups.items()}
    return {name: _drawn(lines) for name, lines in panels.items() if lines}


def _awaited() -> list[str]:
    """The studies whose files say that their results are on this page."""
    return [file.stem for file in sorted(SPACES.glob("*.yaml")) if "docs/results.md" in file.read_text("utf-8")]


def _groups(folder: Path) -> dict[str, list[Report]]:
    """Title → a study with its evaluations; of studies that share a name, titles have the profile and the data."""
    files = sorted(folder.glob("*.json"))
    groups: list[list[Report]] = []
    for study in (one for file in files for one in json.loads(file.read_text(encoding="utf-8"))["studies"]):
        if study["evaluation"] and groups and groups[-1][0]["name"] == study["name"]:
            groups[-1].append(study)  # a report has them behind their study
        else:
            groups.append([study])
    known = Counter(group[0]["name"] for group in groups)
    return {_title(group[0], alone=known[group[0]["name"]] == 1): group for group in groups}


def _title(study: Report, *, alone: bool) -> str:
    return study["name"] if alone else f"{study['name']} ({study['profile']}, {study['data']})"


def _file(title: str) -> str:
    """Name of a study's figure."""
    return re.sub(r"[^\w-]+", "-", title).strip("-")


def differences(study: Report) -> list[Difference]:
    """The declared comparisons of a study whose seeds were added until decided; otherwise all that it has."""
    passes = {row["variant"]: row["image_passes"] for row in study["rows"]}

    def difference(record: Mapping[str, Any], names: tuple[str, str], ends: str, state: str) -> Difference:
        low, high = record[f"{ends}_low"], record[f"{ends}_high"]
        found = Estimate(record["n_seeds"], record["difference"], record["sd"], low, high)
        one, other = (passes[name] for name in names)
        equal = None not in (one, other) and same_passes(one, other)
        return Difference(*names, study["metric"], found, state, equal)

    if study["decisions"]:
        return [
            difference(one, (one["minuend"], one["subtrahend"]), "sequential", one["status"])
            for one in study["decisions"]["comparisons"]
        ]
    return [
        difference(one, (one["variant"], one["minus"]), "ci95", _state(one, study["metric"]))
        for one in study["comparisons"]
        if one["difference"] is not None
    ]


def _state(record: Mapping[str, Any], metric: str) -> str:
    if record["p"] is None or record["p"] > ALPHA:
        return "not shown to differ"
    return "better" if (record["difference"] > 0) != lower_is_better(metric) else "worse"


def _section(title: str, studies: Sequence[Report]) -> str:
    first, command = studies[0], _command(studies[0])
    lines = [f"## {title}", "", first["question"], "", f"    {command}", "", _made(first["made"], studies), ""]
    for study in studies:
        if study["evaluation"]:
            lines += [f"### {title}: {study['evaluation']}", "", f"On {study['data']}.", ""]
        lines += [_answer(study), ""]
        alt = "" if study["evaluation"] else _alt(_own(study))
        lines += [f"![{alt}](results/{_file(title)}.svg)", ""] if alt else []
        lines += [*_table(study), "", *_comparisons(study)]
        if any(one.state == "open" for one in differences(study)):
            lines += [OPEN.format(name=first["name"]), ""]
        notes = [f"- {note}" for note in study["notes"] if note != STOPPING]  # the head says it
        lines += [*notes, ""] if notes else []
    return "\n".join(lines)


def _command(study: Report) -> str:
    """The command that the study file's header gives for this profile."""
    lines = (SPACES / f"{study['name']}.yaml").read_text(encoding="utf-8").splitlines()
    found = [line.removeprefix("#").strip() for line in lines if f"--profile {study['profile']}" in line]
    return found[0].split("   ")[0] if found else f"hmtl-ablate run search_spaces/{study['name']}.yaml"


def _made(made: Mapping[str, Any], studies: Sequence[Report]) -> str:
    commits = ", ".join(commit[:7] for commit in made["commit"].split(", "))
    minutes = sum(study["made"]["seconds"] for study in studies) / 60
    return f"Commit {commits}, {made['device']}, torch {made['torch']}; {minutes:.0f} minutes of training in total."


def _answer(study: Report) -> str:
    """The verdicts on controlled arms; without any the variants by state, for each arm that they were compared with."""
    if study["controls"]:
        return " ".join(study["answers"][-len(study["controls"]["arms"]) :])
    found = differences(study)
    names = dict.fromkeys(one.minus for one in found)
    return " ".join(_against(name, [one for one in found if one.minus == name]) for name in names)


def _against(minus: str, found: Sequence[Difference]) -> str:
    """`Against SL: better: SL + rotation (+1.20 [+0.30, +2.10]); undecided: SL + puzzling (…).`"""
    unit = "points" if in_percent(found[0].metric) else label(found[0].metric)
    states = [
        f"{state}: " + ", ".join(f"{one.variant} ({one.text})" for one in found if one.state == state)
        for state in STATES
        if any(one.state == state for one in found)
    ]
    return f"Against {minus}, in {unit}: {'; '.join(states)}."


def _table(study: Report) -> list[str]:
    """A line per arm: its difference from the first one, with the state where that was a comparison."""
    base, percent = study["rows"][0]["variant"], in_percent(study["metric"])
    stated = {one.variant: one for one in differences(study) if one.minus == base}
    lines = [
        f"| Variant | Seeds | {label(study['metric'])} | minus {base} | Pairs | State | Image passes |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in study["rows"]:
        score = score_text(Estimate(row["n_seeds"], row["mean"], row["sd"]), percent)
        one = stated.get(row["variant"])
        point = one.estimate if one else Estimate(row["n_pairs"] or 0, row["difference"])
        apart = "—" if point.mean is None else difference_text(point, percent)
        pairs = "" if point.mean is None else str(point.n)
        passes = "—" if row["image_passes"] is None else f"{row['image_passes']:,.0f}"
        cells = [row["variant"], str(row["n_seeds"]), score, apart, pairs, one.state if one else "", passes]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _comparisons(study: Report) -> list[str]:
    """A table of all comparisons, where there are some with other arms than the first."""
    base, found = study["rows"][0]["variant"], differences(study)
    if all(one.minus == base for one in found):
        return []
    unit = label(study["metric"]).replace(", %", ", points")
    lines = [f"| Comparison | Pairs | Difference in {unit} | State |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {one.name} | {one.estimate.n} | {one.text} | {one.state} |" for one in found]
    return [*lines, ""]


def _own(study: Report) -> Panels:
    """Each comparison of a study."""
    found = [one for one in differences(study) if one.estimate.mean is not None]
    one_base = len({one.minus for one in found}) == 1
    return {study["metric"]: {one.variant if one_base else one.name: one for one in found}} if found else {}


def _forest(groups: Mapping[str, Sequence[Report]]) -> Panels:
    """The differences at equal image passes of all studies."""
    panels: dict[str, dict[str, Difference]] = {}
    for title, group in groups.items():
        for study in group:
            name = f"{title}, {study['evaluation']}" if study["evaluation"] else title
            for one in differences(study):
                if one.equal_passes and one.estimate.mean is not None:
                    panels.setdefault(one.metric, {})[f"{name}: {one.name}"] = one
    return panels


def _alt(panels: Panels) -> str:
    """A figure in words, for readers who do not see it; "" without one."""
    words = [f"{name}: {one.text}, {one.state}" for lines in panels.values() for name, one in lines.items()]
    return "; ".join(words) + "." * bool(words)


def _drawn(panels: Panels) -> Figure:
    """Forest plots below each other."""
    heights = [forest_height(len(lines)) + 0.2 * len(lines) for lines in panels.values()]
    with style():
        figure, all_axes = new_figure(sum(heights), len(panels), heights)
        for axes, (metric, lines) in zip(all_axes, panels.items(), strict=True):
            colours = [COLOURS[0] if one.state in CALLED else GREY for one in lines.values()]
            forest(axes, [(name, one.estimate) for name, one in lines.items()], in_percent(metric), colours)
            axes.set_yticks(range(len(lines)), [wrapped(name, 34) for name in lines], fontsize=8)
            axes.set_xlabel(wrapped(_axis(metric, lines), 44))
    return figure


def _axis(metric: str, lines: Mapping[str, Difference]) -> str:
    """What all are compared with is named where the lines have the arm's name alone."""
    bases = {one.minus for name, one in lines.items() if name == one.variant}
    of = " ".join(["difference", *(f"from {base}" for base in bases)])
    unit = ", points" if in_percent(metric) else ""
    return f"{label(metric).removesuffix(', %')}: {of}{unit}" + ("; lower is better" if lower_is_better(metric) else "")


def main(arguments: Sequence[str]) -> int:
    code = write_page(
        arguments, "python analysis/results_page.py", "hmtl-ablate report --format json --output FILE", page
    )
    if code == 0:
        folder = Path(arguments[0])
        for name, figure in figures(folder).items():
            (folder / f"{name}.svg").write_text(svg(figure), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
