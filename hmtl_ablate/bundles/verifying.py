"""All of a bundle against itself: files, trials, labels, and each cell of its tables."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmtl_ablate import __version__
from hmtl_ablate.bundles.layout import PAGE, PREDICTIONS, RECORDS, REPORT, BundleError, Difference, study_file
from hmtl_ablate.bundles.reading import Bundle, opened
from hmtl_ablate.bundles.rebuilding import Content, Records, rebuilt
from hmtl_ablate.bundles.trials import differences
from hmtl_ablate.data.reading import SHARES
from hmtl_ablate.reporting.document import one_line
from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.wording import plural

ROUNDING = 1e-9
"""Largest difference of a cell, absolute and as a share: other versions of SciPy may round otherwise."""
HONESTY = (
    "This proves that tables, metrics, curves, configs and predictions fit together, not that they were measured: "
    "`--retrain` trains one trial again."
)


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    cells: int
    """Cells of the report's tables that were recomputed."""
    trials: int
    """Trials whose metrics were recomputed."""
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    """What could not be compared, and what a reader should know of the code."""

    @property
    def consistent(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    @property
    def summary(self) -> str:
        """One line, e.g. "52 cells, 4 trials: all consistent"."""
        found = "all consistent" if self.consistent else plural(len(self.differences), "difference")
        return f"{self.cells:,} cells, {self.trials:,} trials: {found}"


def verify_file(path: Path) -> Verification:
    """Recompute what a bundle says. Raises BundleError when it can't be read."""
    with opened(path) as bundle:
        return verified(bundle)


def verified(bundle: Bundle) -> Verification:
    """Recompute what an unpacked bundle says. Raises BundleError for content that hmtl-ablate does not write."""
    found, count = list(bundle.changed), 0
    own = bundle.manifest.get("package") == __version__
    notes = [] if own else [f"made by hmtl-ablate {_line(bundle.manifest.get('package'))}, verified by {__version__}"]
    try:
        found += _of_trials(bundle)
        found += _labels(bundle.contents)
        found += _study_files(bundle)
        report, page = report_of(bundle.records, bundle.contents, bundle.root)
    except Exception as error:  # whatever a stranger's file makes the report stumble over is that file's fault
        if not found:
            raise BundleError(
                f"the report can't be rebuilt from this bundle: {type(error).__name__}: {_line(error)}"
            ) from error
        found.append(Difference(REPORT, "", f"can't be rebuilt: {type(error).__name__}: {_line(error)}"))
    else:
        cells = list(_cells(report, bundle.report, ()))
        count = len(cells)
        found += [one for one in cells if one is not None]
        if own:
            found += _lines(page, (bundle.root / PAGE).read_text(encoding="utf-8", errors="replace"))
        else:
            notes.append(f"{PAGE} was not compared")
    notes += _code(bundle)
    complete = sum(content.result is not None for content in bundle.contents.values())
    return Verification(count, complete, tuple(dict.fromkeys(found)), tuple(notes))


def report_of(records: Records, contents: Mapping[str, Content], root: Path) -> tuple[Any, str]:
    """The report as plain data, and as Markdown. root: where `trials/<trial_id>/` are."""
    report = build_report(rebuilt(records, contents, root))
    return json.loads(render(report, "json")), render(report, "markdown")


def _of_trials(bundle: Bundle) -> Iterator[Difference]:
    records = {record.trial_id: record for record in reversed(bundle.records.trials)}
    for trial_id in sorted({*bundle.contents} - {*records}):
        yield Difference(f"trials/{trial_id}", "", f"is a trial that {RECORDS} does not know")
    for record in bundle.records.trials:
        content = bundle.contents.get(record.trial_id)
        if content is None:
            if not record.config or (record.status == "finished" and _counts(record, bundle)):
                yield Difference(RECORDS, f"trial {_line(record.trial_id)}", "is a trial whose folder is missing")
            continue
        identity = record.fingerprint + _digests(bundle.data, record.fingerprint, content.config.tasks)
        yield from differences(content, record, identity)


def _counts(record: Any, bundle: Bundle) -> bool:
    """Whether the study declares a trial as it is now."""
    study = next((one for one in bundle.records.studies if one.run_id == record.parent), None)
    return study is not None and study.variants.get(record.variant) == record.variant_key


def _digests(data: Mapping[str, Any], fingerprint: str, tasks: tuple[str, ...]) -> str:
    """What a trial's id depends on in addition to the fingerprint (`Pack.identity`)."""
    entry = data.get(fingerprint)
    digests = entry.get("label_digests") if isinstance(entry, dict) else None
    if not isinstance(digests, dict):
        return ""
    read = {*tasks, *(f"{task}{SHARES}" for task in tasks)}
    return "".join(f"+{label}:{digests[label]}" for label in sorted(read & {*digests}))


def _labels(contents: Mapping[str, Content]) -> Iterator[Difference]:
    """Trials that were measured on the same images have the same labels of them."""
    known: dict[tuple[str, ...], tuple[str, Any]] = {}
    for trial_id, content in sorted(contents.items()):
        if content.result is None:
            continue
        for name, values in sorted(content.predictions.items()):
            index = content.predictions.get(f"{name.partition('_')[0]}_index")
            if not name.endswith("_label") or index is None:
                continue
            data = content.config.data.model_dump_json()
            digest = hashlib.sha256(np.ascontiguousarray(index).tobytes()).hexdigest()
            first, theirs = known.setdefault((data, *content.config.tasks, name, digest), (trial_id, values))
            same = theirs.shape == values.shape and np.array_equal(theirs, values, equal_nan=values.dtype.kind == "f")
            if not same:
                yield Difference(
                    f"trials/{trial_id}/{PREDICTIONS}", name, f"other labels of the same images than in trial {first}"
                )


def _study_files(bundle: Bundle) -> Iterator[Difference]:
    for number, study in enumerate(bundle.records.studies, 1):
        path, entry = bundle.root / study_file(number), bundle.data.get(study_file(number), {})
        if not path.exists() or not study.file or (isinstance(entry, dict) and entry.get("scrubbed") is True):
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != study.file:
            yield Difference(study_file(number), "", "is not the file that the study was last run with")


def _cells(own: Any, theirs: Any, path: tuple[str, ...]) -> Iterator[Difference | None]:
    """For each cell None, or what differs. own: recomputed; theirs: of the bundle."""
    if isinstance(own, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys((*theirs, *own)):
            if key not in theirs:
                continue  # a newer version has more columns
            yield from _cells(own.get(key, _Missing), theirs[key], (*path, _line(key)))
    elif isinstance(own, list) and isinstance(theirs, list) and len(own) == len(theirs):
        for number, (one, other) in enumerate(zip(own, theirs, strict=True), 1):
            yield from _cells(one, other, (*path, _row(one, number)))
    elif _same(own, theirs):
        yield None
    else:
        yield Difference(REPORT, _where(path), f"{_text(theirs)} in the report, {_text(own)} recomputed")


class _Missing:
    """In the place of a cell that the rebuilt report has not."""


def _same(own: Any, theirs: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (own, theirs))
    if numbers:
        return math.isclose(own, theirs, rel_tol=ROUNDING, abs_tol=ROUNDING)
    return type(own) is type(theirs) and bool(own == theirs)


def _row(value: Any, number: int) -> str:
    """Name of an element of a list: by what it says of itself, else its number."""
    if isinstance(value, dict):
        for keys in (("name", "profile", "evaluation"), ("dataset", "model", "metric"), ("variant",), ("arm", "rank")):
            words = [str(value[key]) for key in keys if value.get(key)]
            if keys[0] in value and words:
                return "row " + repr(", ".join(words))
    return f"number {number}"


def _where(path: tuple[str, ...]) -> str:
    """E.g. studies, row 'tiny, quick', rows, row 'SL', column mean."""
    *tables, column = path or ("",)
    return ", ".join((*tables, f"column {column}"))


def _text(value: Any) -> str:
    if value is _Missing:
        return "nothing"
    if isinstance(value, dict | list):
        return f"{len(value)} entries"
    return _line(f"{value!r}")[:120]


def _lines(own: str, theirs: str) -> Iterator[Difference]:
    """The first line of the report for people that differs, with its number."""
    ours, others = own.splitlines(), theirs.splitlines()
    for number, (one, other) in enumerate(zip(ours, others, strict=False), 1):
        if one != other:
            yield Difference(PAGE, f"line {number}", f"{_line(other)[:160]!r}, recomputed {_line(one)[:160]!r}")
    if len(ours) != len(others):
        yield Difference(PAGE, "", f"{len(others)} lines, recomputed {len(ours)}")


def _code(bundle: Bundle) -> list[str]:
    """Which code trained the trials."""
    commits = {
        content.result.tags.get("git_commit", "") for content in bundle.contents.values() if content.result is not None
    }
    return [
        f"code: {_line(commit)[:80]}, which had uncommitted changes (uncommitted.diff)"
        if commit.endswith("+dirty")
        else f"code: {_line(commit)[:80] or 'an installed package, no commit'}"
        for commit in sorted(commits)
    ]


def _line(value: Any) -> str:
    """A text of the bundle as one printable line: it may hold what drives a terminal."""
    return one_line(str(value))[:300]
