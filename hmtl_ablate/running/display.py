"""The live display of a run on a terminal; plain lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
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


class LiveDisplay:
    """A ProgressListener that draws counts of trials, the running trials, and the time left.

    quiet: print warnings only. starting: what a run does before its first trial trains.
    """

    def __init__(
        self, console: Console, quiet: bool, starting: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console, self.quiet, self.starting = console, quiet, starting
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
            ended = self.done + self.pruned + self.failed + self.skipped
            self.say(f"[{ended}/{self.total}] {one.name}: {', '.join(parts)}, {clock_text(seconds)}")

    def forecast(self, left: Callable[[int], float | None]) -> None:
        self._left = left

    def render(self) -> Text:
        """The live lines as they are now."""
        width = min(self.console.width, LIVE_WIDTH)
        ended = self.done + self.pruned + self.failed + self.skipped
        waiting = self.total - ended - len(self.running)
        left = self._left(max(waiting, 0)) if self.running or waiting > 0 else None
        speed = sum(one.metrics.get("images_per_second", 0.0) for one in self.running.values())
        counts = [f"trials: {self.done + self.skipped} of {self.total} done", f"{len(self.running)} running"]
        counts += [f"{self.pruned} stopped early"] if self.pruned else []
        counts += [f"{self.failed} failed"] if self.failed else []
        counts += [f"{speed:,.0f} images/s"] if speed else []
        counts += [clock_text(self._clock() - self._started)]
        counts += [f"about {clock_text(left)} left"] if left is not None else []
        lines = _packed(counts, ", ", width)
        if self.starting and not self._trained and ended < self.total:
            lines += _packed(self.starting.split(), " ", width)
        for metric, (name, value) in self.best.items():
            lines.append(_fitted("best so far: ", name, f", {shown(metric, value)}", width))
        lines += [_fitted("  ", one.name, f": {_state(one)}", width) for one in self.running.values()]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def _state(one: Running) -> str:
    if not one.metrics:
        return "starting"
    metric = one.config.selects_by
    value = f", {shown(metric, one.metrics[metric])}" if metric in one.metrics else ""
    return f"epoch {one.metrics['epoch']:.0f}/{one.config.training.epochs}{value}"


def _packed(parts: Iterable[str], separator: str, width: int) -> list[str]:
    """The parts in as few lines as they fit in; no part is broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(separator) + len(part) <= width:
            lines[-1] += separator + part
        else:
            lines.append(part)
    return lines


def _fitted(before: str, name: str, after: str, width: int) -> str:
    """One line, in which a long name is cut."""
    room = max(width - len(before) - len(after), 1)
    return before + (name if len(name) <= room else name[: room - 1] + "…") + after
