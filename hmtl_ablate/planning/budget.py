"""A run's time: how long it is, and which of the waiting trials is started in what is left of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hmtl_ablate.errors import HmtlError

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_budget(text: str) -> float:
    """Seconds of "30m", "8h", "1.5h" or "2d". Raises HmtlError for anything else, or nothing above 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhd])\s*", text)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise HmtlError(
            f"budget {text!r} is no time: write a number above 0 and m (minutes), h (hours) or d (days), "
            "e.g. 30m, 8h, 1.5h or 2d"
        )
    return seconds


@dataclass(frozen=True)
class Waiting:
    """A trial that could be started."""

    arms: tuple[str, ...]
    """Variants and stages that it is of."""
    seed: int
    seconds: float | None
    """That it is expected to take; None before anything like it was measured."""
    ready: bool = True
    """Whether all trials that it starts from are over."""
    sources: tuple[int, ...] = ()
    """Positions of the waiting trials that it starts from."""


def choose(
    waiting: Sequence[Waiting],
    left: float,
    *,
    baseline: str = "",
    free: int = 1,
    widths: Mapping[str, float] = {},
) -> int | None:
    """Position of the trial to start now, None when none fits into the `left` seconds.

    Seed by seed, in the given order, as long as all that waits of a seed fits: baseline, methods, controls. When only
    some fits, a comparison is started whole or not at all: an arm together with the baseline of its seed and the trials
    that they start from, where these wait too; the arm first whose interval is widest. A trial of unknown length fits
    if any time is left.

    waiting: in the order they run without a budget. baseline: the variant that the others are compared with. free:
    trials that can start now. widths: variant → width of its interval relative to the smallest difference that matters;
    infinite where left out.
    """
    if left <= 0:
        return None
    for seed in dict.fromkeys(one.seed for one in waiting):
        own = [number for number, one in enumerate(waiting) if one.seed == seed]
        whole = _seconds(waiting, own, free)
        if whole <= left:
            ready = [number for number in own if waiting[number].ready]
            return ready[0] if ready else None
        for group in _groups(waiting, own, baseline, widths):
            if _seconds(waiting, group, free if len(group) == 2 and free > 1 else 1) <= left:
                ready = [number for number in group if waiting[number].ready]
                return ready[0] if ready else None
    return None


def _groups(
    waiting: Sequence[Waiting], own: Sequence[int], baseline: str, widths: Mapping[str, float]
) -> list[list[int]]:
    """What belongs together of one seed, the widest interval first: sources, baseline, arm."""
    first = [number for number in own if baseline in waiting[number].arms]
    sources = {source for one in waiting for source in one.sources}
    arms = [number for number in own if number not in first and number not in sources] or first
    arms.sort(key=lambda number: -max((widths.get(arm, math.inf) for arm in waiting[number].arms), default=math.inf))
    return [list(dict.fromkeys([*_needed(waiting, [*first, arm]), *first, arm])) for arm in arms]


def _needed(waiting: Sequence[Waiting], numbers: Sequence[int]) -> list[int]:
    """The waiting trials that these start from, deepest first."""
    found: list[int] = []
    for number in numbers:
        for source in waiting[number].sources:
            found += [*_needed(waiting, [source]), source]
    return found


def _seconds(waiting: Sequence[Waiting], numbers: Sequence[int], free: int) -> float:
    """Seconds of these trials on so many places; unknown ones count nothing."""
    times = [waiting[number].seconds or 0.0 for number in numbers]
    return max(sum(times) / max(free, 1), max(times, default=0.0))
