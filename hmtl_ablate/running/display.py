"""The live display of a run on a terminal; plain lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hmtl_ablate.config import TrialConfig, in_percent


def duration(seconds: float) -> str:
    """Seconds as a person writes them: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def shown(metric: str, value: float) -> str:
    """A metric as a person reads it: val accuracy 63.2 %, val mae 5.31."""
    name = metric.replace("/", " ").replace("_", " ")
    return f"{name} {100 * value:.1f} %" if in_percent(metric) else f"{name} {value:.3g}"


class LiveDisplay:
    """A ProgressListener that draws counts of trials, the running trials, and the time left.

    quiet: print warnings only.
    """

    def __init__(self, console: Console, quiet: bool) -> None:
        self.console, self.quiet = console, quiet
        self.total = self.done = self.pruned = self.failed = self.skipped = 0
        self.running: dict[str, tuple[str, Mapping[str, float], TrialConfig]] = {}
        self.best: dict[str, tuple[str, float]] = {}
        """Metric that selects weights → the best trial's name and value."""
        self._started = time.monotonic()
        self._worked = 0.0
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2, transient=True)

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
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def warn(self, text: str) -> None:
        """One line that stays on screen, quiet or not."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def start(self, trial_id: str, name: str, config: TrialConfig) -> None:
        self.running[trial_id] = (name, {}, config)

    def epoch(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        if trial_id in self.running:
            name, _, config = self.running[trial_id]
            self.running[trial_id] = (name, metrics, config)

    def end(self, trial_id: str, status: str, result: Mapping[str, float], seconds: float) -> None:
        name, _, config = self.running.pop(trial_id, (trial_id, {}, TrialConfig()))
        self._worked += seconds
        self.done += status == "finished"
        self.pruned += status == "pruned"
        self.failed += status == "failed"
        metric = config.selects_by
        value = result.get(f"best/{metric}")
        if status == "finished" and value is not None:
            sign = 1 if config.metrics[metric.removeprefix("val/")] == "max" else -1
            if metric not in self.best or sign * value > sign * self.best[metric][1]:
                self.best[metric] = (name, value)
        if status in {"finished", "pruned"}:
            parts = [status] + ([shown(metric, value)] if value is not None else [])
            test = f"test/{next(iter(config.metrics), '')}"
            parts += [shown(test, result[test])] if test in result else []
            ended = self.done + self.pruned + self.failed + self.skipped
            self.say(f"[{ended}/{self.total}] {name}: {', '.join(parts)}, {duration(seconds)}")

    def _left(self) -> str:
        ended = self.done + self.pruned + self.failed
        todo = self.total - self.skipped - ended
        if not ended or todo <= 0:
            return ""
        each = (time.monotonic() - self._started) / ended
        return f", about {duration(each * todo)} left"

    def _render(self) -> Text:
        speed = sum(metrics.get("images_per_second", 0.0) for _, metrics, _ in self.running.values())
        ended = self.done + self.skipped
        lines = [
            f"trials: {ended} of {self.total} done, {len(self.running)} running, {self.pruned} stopped early, "
            f"{self.failed} failed · {speed:,.0f} images/s · {duration(time.monotonic() - self._started)}"
            f"{self._left()}"
        ]
        lines += [f"best so far: {name}, {shown(metric, value)}" for metric, (name, value) in self.best.items()]
        for name, metrics, config in self.running.values():
            state = f"epoch {metrics['epoch']:.0f}/{config.training.epochs}" if metrics else "starting"
            if config.selects_by in metrics:
                state += f", {shown(config.selects_by, metrics[config.selects_by])}"
            lines.append(f"  {name}: {state}")
        return Text("\n".join(lines))
