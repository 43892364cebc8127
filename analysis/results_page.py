"""docs/results.md from the reports in docs/results/: one section per study, each with its conclusion.

    hmtl-ablate report --study gender --format json --output docs/results/gender.json
    python analysis/results_page.py docs/results docs/results.md

The conclusion follows a fixed rule: it names the variants whose 95 % interval of the difference, paired by seed,
excludes zero, compared with plain SL (equal epochs) and with SL with more views (equal image passes).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.pages import write_page
from hmtl_ablate.reporting.statistics import Estimate, paired_difference, without_interval
from hmtl_ablate.reporting.wording import label, lower_is_better
from hmtl_ablate.study import WINNER

SPACES = Path(__file__).parent.parent / "search_spaces"
HEAD = """# Results on stand-in data

Rendered by `python analysis/results_page.py docs/results docs/results.md` from the reports in docs/results/. Small
networks on two CPU cores, on public datasets that are not the paper's: these numbers verify no claim. Scores are mean ±
standard deviation over paired seeds; differences have 95 % intervals, not corrected for the number of comparisons.
Image passes are per trial and include those of the trials it started from. Other work ran on the same machine, so the
minutes are not comparable between studies.

**Older numerics, older labels.** A section that says "older numerics" was measured before numerics version 3
(`hmtl_ablate/config.py`) and is not repeated yet: the defaults, the perceptual loss, the in-painting decoder, AdaBelief
and the augmentation have changed since. In version 1 the steps of an augmentation also shared their random numbers:
with `weak`, nearly all colour jitter fell on flipped faces and none on the others. "Plurality labels": faces of FER+
whose raters disagree were used too, which FER+'s own majority rule leaves out. All variants of a section were affected
equally, but the numbers are not comparable with newer ones.

**Under way.** `ferplus_attribution` asks where puzzling's gain on FER+ comes from; its rule was committed before its
first trial. Its trials so far are in `docs/results/ferplus_attribution.hmtl.zip` (commit 9662aa7, two CPU cores). Until
the rule has decided there is no result. To continue:

    hmtl-ablate import docs/results/ferplus_attribution.hmtl.zip
    hmtl-ablate run search_spaces/ferplus_attribution.yaml --profile standin --data ferplus=PATH
"""
OLDER_NUMERICS = {
    **dict.fromkeys(("bd1bc58", "b31793e", "6f77e1a"), "older numerics (version 1)"),
    **dict.fromkeys(("f6480f8", "12cd8d9"), "older numerics (version 2)"),
}
"""Commits before numerics version 3 → what their results are marked with. All of them used FER+ by plurality."""

SETTING = re.compile(r"( \+ \d+% train)?( \(B\d\))?$")
"""The part of a variant's name that gives data and backbone; variants are compared within the same setting."""
BASELINE = re.compile(rf"SL|SL, \d views|{WINNER}, SL alone|{WINNER}, SL with \d views")
"""What the others are compared with: SL at equal epochs, and SL at equal image passes."""

Row = Mapping[str, Any]
Bases = Mapping[str, Mapping[str, Row]]
"""Baseline → setting → its row."""


def page(folder: Path) -> str:
    """The page from every *.json in `folder`, in the order of their names."""
    sections = []
    for file in sorted(folder.glob("*.json")):
        studies = json.loads(file.read_text(encoding="utf-8"))["studies"]
        sections += [_study(study, first=number == 0) for number, study in enumerate(studies)]
    return "\n".join([HEAD, *sections])


def _study(study: Mapping[str, Any], *, first: bool) -> str:
    rows = study["rows"]
    bases = _bases(rows)
    lines = []
    if first:
        lines += [
            f"## {study['name']}",
            "",
            study["question"],
            "",
            f"    {_command(study)}",
            "",
            _made(_command(study), **study["made"]),
            "",
        ]
    else:
        lines += [f"### {study['name']}: {study['evaluation']}", "", f"On {study['data']}.", ""]
    header = ["Variant", "Seeds", label(study["metric"]), *(f"minus {name}" for name in bases), "Image passes"]
    lines += [f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
    percent = in_percent(study["metric"])
    for row in rows:
        cells = [
            row["variant"],
            str(row["n_seeds"]),
            _score(row, percent),
            *(_difference(row, _base(row, settings), percent) for settings in bases.values()),
            "—" if row["image_passes"] is None else f"{row['image_passes']:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _conclusion(study, bases), ""]
    return "\n".join([*lines, *(f"- {note}" for note in study["notes"]), *([""] if study["notes"] else [])])


def _bases(rows: Sequence[Row]) -> Bases:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        kind, setting = _split(row)
        if BASELINE.fullmatch(kind):
            found.setdefault(kind, {})[setting] = row
    return found or {"the first row": {"": rows[0]}}


def _split(row: Row) -> tuple[str, str]:
    """A variant's name without its evaluation: the method and the setting."""
    name = row["variant"].partition(" → ")[0]
    setting = SETTING.search(name)
    start = setting.start() if setting else len(name)
    return name[:start], name[start:]


def _made(command: str, commit: str, device: str, torch: str, seconds: float) -> str:
    commits = [one[:7] for one in commit.split(", ")]
    older = [OLDER_NUMERICS[one] for one in commits if one in OLDER_NUMERICS]
    marks = [older[0]] + ["plurality labels"] * ("ferplus" in command) if older else []
    return f"Commit {', '.join(commits)}, {device}, torch {torch}; {seconds / 60:.0f} minutes of training in total." + (
        f" **{', '.join(marks)[0].upper()}{', '.join(marks)[1:]}.**" if marks else ""
    )


def _base(row: Row, settings: Mapping[str, Row]) -> Row | None:
    return settings.get(_split(row)[1])


def _command(study: Mapping[str, Any]) -> str:
    """The command that the study file's header gives for this profile."""
    lines = (SPACES / f"{study['name']}.yaml").read_text(encoding="utf-8").splitlines()
    found = [line.removeprefix("#").strip() for line in lines if f"--profile {study['profile']}" in line]
    return found[0].split("   ")[0] if found else f"hmtl-ablate run search_spaces/{study['name']}.yaml"


def _paired(row: Row, base: Row | None) -> Estimate | None:
    if base is None or row is base:
        return None
    values, others = ({int(seed): value for seed, value in one["values"].items()} for one in (row, base))
    found = paired_difference(values, others)
    return found if row["mean_ci95_low"] is not None else without_interval(found)  # seeds were added until decided


def _score(row: Row, percent: bool) -> str:
    if row["mean"] is None:
        return "—"
    scale = 100 if percent else 1
    return f"{scale * row['mean']:.2f}" + ("" if row["sd"] is None else f" ± {scale * row['sd']:.2f}")


def _difference(row: Row, base: Row | None, percent: bool) -> str:
    apart = _paired(row, base)
    if apart is None or apart.mean is None:
        return "—"
    scale = 100 if percent else 1
    text = f"{scale * apart.mean:+.2f}"
    if apart.low is not None and apart.high is not None:
        text += f" [{scale * apart.low:+.2f}, {scale * apart.high:+.2f}]"
    return text.replace("-", "−")


def _conclusion(study: Mapping[str, Any], bases: Bases) -> str:
    return " ".join(_comparison(study, title, settings) for title, settings in bases.items())


def _comparison(study: Mapping[str, Any], title: str, settings: Mapping[str, Row]) -> str:
    """The variants that differ from a baseline by more than noise, each way; rows without an interval are not named."""
    sign = -1 if lower_is_better(study["metric"]) else 1
    found: dict[str, list[str]] = {"better beyond noise": [], "worse beyond noise": [], "within noise": []}
    for row in study["rows"]:
        apart = _paired(row, _base(row, settings))
        if apart is None or apart.low is None or apart.high is None:
            continue
        if apart.low * apart.high <= 0:
            found["within noise"].append(row["variant"])
        else:
            found["better beyond noise" if sign * apart.low > 0 else "worse beyond noise"].append(row["variant"])
    within = found.pop("within noise")
    clear = [f"{what}: {'; '.join(names)}." for what, names in found.items() if names]
    if not clear:
        seeds = max(base["n_seeds"] for base in settings.values())
        return f"Compared with {title}, no variant differs by more than the noise of {seeds} seeds."
    first, *others = clear
    sentences = [f"Compared with {title}, {first}", *(f"{other[0].upper()}{other[1:]}" for other in others)]
    return " ".join([*sentences, *(["The others are within noise."] if within else [])])


def main(arguments: Sequence[str]) -> int:
    return write_page(
        arguments, "python analysis/results_page.py", "hmtl-ablate report --format json --output FILE", page
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
