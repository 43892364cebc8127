"""The live display of a run on a terminal; plain lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hmtl_ablate.config import TrialConfig, in_percent
from hmtl_ablate.reporting.wording import clock_text

LIVE_WIDTH = 60
"""Columns of the live lines at most. A terminal that is made narrower folds the lines that do not fit, and what is
drawn next would leave them behind; nobody makes one narrower than this."""


def shown(metric: str, value: float) -> str:
    """A metric as a person reads it: val accuracy 63.2 %, val mae 5.31."""
    name = metric.replace("/", " ").replace("_", " ")
    return f"{name} {100 * value:.1f} %" if in_percent(metric) else f"{name} {value:.3g}"


@dataclass
class Running:
    """A trial that runs."""

    name: str
    config: TrialConfig
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of its last epoch; empty before the first."""

    @property
    def share(self) -> float:
        """The part of its epochs that it has trained, from 0 to 1."""
        return min(self.metrics.get("epoch", 0.0) / self.config.training.epochs, 1.0)


class LiveDisplay:
    """A ProgressListener that draws a bar, counts of trials, the running trials, and the time left.

    quiet: print warnings only. starting, ending: what a run does before its first trial trains, and after its last one.
    """

    def __init__(
        self,
        console: Console,
        quiet: bool,
        starting: str = "",
        ending: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console, self.quiet, self.starting, self.ending = console, quiet, starting, ending
        self.total = self.done = self.pruned = self.failed = self.skipped = 0
        self.running: dict[str, Running] = {}
        self.best: dict[str, tuple[str, float]] = {}
        """Metric that selects weights → the best trial's name and value."""
        self._clock = clock
        self._started = clock()
        self._left: Callable[[int], float | None] = lambda waiting: None
        self._trained = False
        self._live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,  # what others print does not belong on this screen
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveDisplay:
        if self.console.is_terminal and not self.quiet:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def expect(self, trials: int) -> None:
        self.total += trials

    def skip(self) -> None:
        self.skipped += 1

    def say(self, text: str) -> None:
        """One line that stays on screen; quiet leaves it out."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """One line that stays on screen, quiet or not. A terminal's lines break between words; a file's do not."""
        self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal, markup=False)

    def start(self, trial_id: str, name: str, config: TrialConfig) -> None:
        self.running[trial_id] = Running(name, config)

    def epoch(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        if trial_id in self.running:
            self.running[trial_id].metrics = metrics
            self._trained = True

    def end(self, trial_id: str, status: str, result: Mapping[str, float], seconds: float) -> None:
        one = self.running.pop(trial_id, None) or Running(trial_id, TrialConfig())
        self._trained = True
        self.done += status == "finished"
        self.pruned += status == "pruned"
        self.failed += status == "failed"
        metric = one.config.selects_by
        value = result.get(f"best/{metric}")
        if status == "finished" and value is not None:
            sign = 1 if one.config.metrics[metric.removeprefix("val/")] == "max" else -1
            if metric not in self.best or sign * value > sign * self.best[metric][1]:
                self.best[metric] = (one.name, value)
        if status in {"finished", "pruned"}:
            parts = [status] + ([shown(metric, value)] if value is not None else [])
            test = f"test/{next(iter(one.config.metrics), '')}"
            parts += [shown(test, result[test])] if test in result else []
            self.say(f"[{self._ended}/{self.total}] {one.name}: {', '.join(parts)}, {clock_text(seconds)}")

    def forecast(self, left: Callable[[int], float | None]) -> None:
        self._left = left

    def render(self) -> Group:
        """The live lines as they are now: a bar over the epochs of all trials, then what there is to say."""
        width = min(self.console.width, LIVE_WIDTH)
        done = self._ended + sum(one.share for one in self.running.values())
        share = min(done / self.total, 1.0) if self.total else 0.0
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=1.0, completed=share, width=width - len(" 100 %")), Text(f"{100 * share:3.0f} %"))
        return Group(bar, Text("\n".join(self._lines(width)), no_wrap=True, overflow="ellipsis"))

    @property
    def _ended(self) -> int:
        return self.done + self.pruned + self.failed + self.skipped

    def _lines(self, width: int) -> list[str]:
        waiting = self.total - self._ended - len(self.running)
        left = self._left(max(waiting, 0)) if self.running or waiting > 0 else None
        speed = sum(one.metrics.get("images_per_second", 0.0) for one in self.running.values())
        counts = [f"trials: {self.done + self.skipped} of {self.total} done", f"{len(self.running)} running"]
        counts += [f"{self.pruned} stopped early"] if self.pruned else []
        counts += [f"{self.failed} failed"] if self.failed else []
        counts += [f"{speed:,.0f} images/s"] if speed else []
        counts += [clock_text(self._clock() - self._started)]
        counts += [f"about {clock_text(left)} left"] if left is not None else []
        lines = _packed(counts, ", ", width)
        if self.starting and not self._trained and self._ended < self.total:
            lines += _packed(self.starting.split(), " ", width)
        if self.ending and self._trained and not self.running and self._ended == self.total:
            lines += _packed(self.ending.split(), " ", width)
        for metric, (name, value) in self.best.items():
            lines += _named("best so far: ", name, f", {shown(metric, value)}", width)
        for one in self.running.values():
            lines += _named("  ", one.name, f": {_state(one)}", width)
        return lines


def _state(one: Running) -> str:
    if not one.metrics:
        return "loading images and network"
    epoch, epochs = one.metrics["epoch"], one.config.training.epochs
    if epoch >= epochs:
        return "trained, measuring it"
    metric = one.config.selects_by
    value = f", {shown(metric, one.metrics[metric])}" if metric in one.metrics else ""
    return f"epoch {epoch:.0f}/{epochs}{value}"


def _packed(parts: Iterable[str], separator: str, width: int) -> list[str]:
    """The parts in as few lines as they fit in; no part is broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(separator) + len(part) <= width:
            lines[-1] += separator + part
        else:
            lines.append(part)
    return lines


def _named(before: str, name: str, after: str, width: int) -> list[str]:
    """One line; of a name that does not fit next to what is said of it, two, and a name that is longer yet is cut."""
    if len(before) + len(name) + len(after) <= width:
        return [before + name + after]
    room = max(width - len(before), 1)
    return [before + (name if len(name) <= room else name[: room - 1] + "…"), "    " + after.lstrip(":, ")]
