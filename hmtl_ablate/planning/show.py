"""An estimate as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from hmtl_ablate.planning.estimate import Arm, Estimate, SearchCost
from hmtl_ablate.reporting.document import DASH, Column, Section, Table
from hmtl_ablate.reporting.formats.terminal import write
from hmtl_ablate.reporting.wording import bound_text, clock_text

UNKNOWN = "unknown"
WIDE = 90
"""Columns of a terminal from which on memory and disk are columns of the table."""


def size(mebibytes: float) -> str:
    """MiB as a person writes them: 3.4 MiB, 650 MiB, 1.2 GiB."""
    if mebibytes < 10:
        return f"{mebibytes:.1f} MiB"
    return f"{mebibytes:.0f} MiB" if mebibytes < 1000 else f"{mebibytes / 1024:,.1f} GiB"


def many(count: float) -> str:
    """A count in four characters or so: 960, 134 k, 2.1 M, 14 G."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            part = count / limit
            return f"{part:.1f} {letter}" if part < 9.95 else f"{part:,.0f} {letter}"
    return f"{count:.0f}"


def estimate_text(estimate: Estimate, program: str, width: int) -> str:
    """A table of the arms and lines about the whole, in `width` columns. program: how the calibrating command starts,
    e.g. "hmtl-ablate plan study.yaml"."""
    table = Table("", "", _columns(estimate, width), estimate.arms)
    text = write([Section("Cost", "", (table,))], width) if estimate.arms else ""
    lines = [*_lines(estimate), *_missing(estimate, program)]
    return text + "\n" * bool(text) + "".join(f"{line}\n" for line in lines)


def _columns(estimate: Estimate, width: int) -> tuple[Column[Arm], ...]:
    unit = "Detects"
    columns: list[Column[Arm]] = [
        Column("name", lambda arm: arm.name, "Arm", align="left"),
        Column("trials", lambda arm: arm.start, "Trials", text=_trials),
        Column("image_passes", lambda arm: arm.image_passes, "Passes", text=lambda arm: _known(arm, arm.image_passes)),
        Column("seconds", lambda arm: arm.seconds, "Time", text=_time),
    ]
    if any(arm.gpu_hours for arm in estimate.arms):
        columns.append(Column("gpu_hours", lambda arm: arm.gpu_hours, "GPU-h", text=_gpu_hours))
    if width >= WIDE and any(arm.memory or arm.disk for arm in estimate.arms):
        columns += [
            Column(
                "memory", lambda arm: arm.memory, "Memory", text=lambda arm: size(arm.memory) if arm.memory else DASH
            ),
            Column("disk", lambda arm: arm.disk, "Disk", text=lambda arm: size(arm.disk) if arm.disk else DASH),
        ]
    if any(arm.smallest_difference is not None for arm in estimate.arms):
        columns.append(Column("smallest_difference", lambda arm: arm.smallest_difference, unit, text=_smallest))
    return tuple(columns)


def _trials(arm: Arm) -> str:
    return f"{arm.start} ({arm.finished} done)" if arm.finished else str(arm.start)


def _known(arm: Arm, count: float | None) -> str:
    if not arm.start:
        return DASH
    return UNKNOWN if count is None else many(count)


def _time(arm: Arm) -> str:
    if not arm.start:
        return DASH
    return UNKNOWN if arm.seconds is None else ("" if arm.measured else "≈ ") + clock_text(arm.seconds)


def _gpu_hours(arm: Arm) -> str:
    if not arm.start:
        return DASH
    return UNKNOWN if arm.gpu_hours is None else f"{arm.gpu_hours:,.1f}"


def _smallest(arm: Arm) -> str:
    return DASH if arm.smallest_difference is None else f"±{arm.smallest_difference:.2f}"


def _lines(estimate: Estimate) -> list[str]:
    most = bound_text(estimate.at_least, estimate.search is not None)
    passes = UNKNOWN if estimate.image_passes is None else most + many(estimate.image_passes)
    lines = [f"image passes: {passes}" + ("" if estimate.counted else " (images not counted in a pack)")]
    where = f"{estimate.at_once} at once on {estimate.device}" if estimate.at_once else f"on {estimate.device}"
    if estimate.seconds is not None:
        lines.append(f"time: {most}{clock_text(estimate.seconds)}, {where} (engine {estimate.engine})")
    if estimate.gpu_hours:
        lines.append(f"GPU-hours: {most}{estimate.gpu_hours:,.1f}")
    if estimate.memory is not None:
        lines.append(f"memory: {size(estimate.memory)} for {max(estimate.at_once, 1)} at once")
    if estimate.gpu_memory is not None:
        lines.append(f"GPU memory: {size(estimate.gpu_memory)} a trial")
    if estimate.disk is not None and estimate.start:
        least = bound_text(estimate.at_least, False)
        lines.append(
            f"disk: {least}{size(estimate.disk)}" + (" without the search's trials" if estimate.search else "")
        )
    if estimate.search is not None:
        lines += _search_lines(estimate.search)
    if any(arm.start and not arm.measured and arm.seconds is not None for arm in estimate.arms):
        lines.append("≈: from trials of the same network, size and precision")
    if any(arm.smallest_difference is not None for arm in estimate.arms):
        lines.append("Detects: difference from the baseline found with power 80 % at alpha 0.05 (paired t test)")
    elif len(estimate.arms) > 1 and not estimate.at_least:
        lines.append("smallest difference that the seeds detect: unknown until run (spread of the paired differences)")
    return [*lines, *(one.sentence for one in estimate.precisions)]


def _search_lines(search: SearchCost) -> list[str]:
    parts = ["search: as many trials as fit" if search.trials is None else f"search: {search.trials} trials in total"]
    if search.image_passes is not None:
        parts.append(f"{_span(*map(many, search.image_passes))} image passes")
    if search.seconds is not None:
        parts.append(_span(*map(clock_text, search.seconds)))
    lines = [", ".join(parts) + ", less where it prunes"]
    if search.confirmation:
        passes = "" if search.confirmation_passes is None else f", at most {many(search.confirmation_passes)} passes"
        lines.append(f"confirmation of its best: {search.confirmation} trials{passes}")
    return lines


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _missing(estimate: Estimate, program: str) -> list[str]:
    lines = [f"pack {pack.dataset}, {pack.size} px: {pack.state}; {pack.how}" for pack in estimate.packs if pack.how]
    lines += [*estimate.weights, *estimate.notes]
    if (unknown := estimate.uncalibrated) or (estimate.search is not None and estimate.search.seconds is None):
        lines.append(
            f"time of {_named(unknown) if unknown else 'the search'}: unknown until calibrated: {program} --calibrate"
        )
    return lines


def _named(arms: Sequence[str]) -> str:
    return ", ".join(arms) if len(arms) <= 3 else f"{', '.join(arms[:2])} and {len(arms) - 2} more"
