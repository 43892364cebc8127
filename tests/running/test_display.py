"""What a run shows on a terminal of 60, 80 and 120 columns (fault D: the first minute, time left, width, resizing)."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.running.display import LIVE_WIDTH, LiveDisplay

LONG = "SL + puzzling, siamese, 3 × 3, weight 8.1, geometric mean of the views · seed 0"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def display(width: int, clock: Any = None, terminal: bool = True) -> LiveDisplay:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=None)
    return LiveDisplay(
        console, quiet=False, starting="starting Ray; its processes load PyTorch", clock=clock or Clock()
    )


def config(epochs: int = 10, views: int = 1) -> TrialConfig:
    return parse_config({"training": {"epochs": epochs}, "data": {"views": views}})


def lines_of(shown: LiveDisplay) -> list[str]:
    """The live lines below the bar."""
    return drawn(shown)[1:]


def drawn(shown: LiveDisplay) -> list[str]:
    console = Console(file=StringIO(), width=shown.console.width, color_system=None)
    console.print(shown.render())
    file = console.file
    assert isinstance(file, StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def printed(shown: LiveDisplay) -> str:
    file = shown.console.file
    assert isinstance(file, StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_live_lines_fit_and_break_no_word(width: int) -> None:
    shown = display(width)
    shown.expect(1234)
    for number in range(3):
        shown.start(str(number), LONG, config())
        shown.epoch(str(number), {"epoch": 2, "val/accuracy": 0.6321, "images_per_second": 12345.6})
    shown.end("0", "finished", {"best/val/accuracy": 0.7}, 61.0)
    shown.end("1", "failed", {}, 0.0)
    lines = drawn(shown)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= min(width, LIVE_WIDTH)
    for part in ("trials: 1 of 1234 done", "1 running", "1 failed", "12,346 images/s", "val accuracy 70.0 %"):
        assert any(part in line for line in lines), text
    assert lines[-1] == "    epoch 2/10, val accuracy 63.2 %"
    assert lines[-2] == "  " + LONG[: min(width, LIVE_WIDTH) - 3] + "…"
    assert lines[0].endswith("   0 %")  # 2 of 1234 and a fifth


def test_the_bar_counts_the_epochs_of_trials_that_run() -> None:
    """Of 4 trials one is over and one has had 4 of its 10 epochs: 1.4 of 4."""
    shown = display(80)
    assert drawn(shown)[0].endswith("   0 %")
    shown.expect(4)
    shown.skip()
    shown.start("a", "SL", config())
    shown.epoch("a", {"epoch": 4})
    assert drawn(shown)[0].endswith("  35 %")
    shown.epoch("a", {"epoch": 10})
    assert lines_of(shown)[1:] == ["  SL: trained, measuring it"]


def test_the_live_lines_do_not_depend_on_a_width_that_a_resize_can_change() -> None:
    """A terminal made narrower than its lines folds them, and the next drawing leaves the folded part behind."""
    wide, narrow = display(120), display(60)
    for shown in (wide, narrow):
        shown.expect(4)
        shown.start("a", LONG, config())
    assert drawn(wide) == drawn(narrow)


def test_the_first_minute_says_what_it_does() -> None:
    shown = display(80)
    shown.expect(2)
    assert lines_of(shown) == [
        "trials: 0 of 2 done, 0 running, 0 s",
        "starting Ray; its processes load PyTorch",
    ]
    shown.start("a", "SL · seed 0", config())
    assert lines_of(shown)[1:] == [
        "starting Ray; its processes load PyTorch",
        "  SL · seed 0: loading images and network",
    ]
    shown.epoch("a", {"epoch": 1})
    assert lines_of(shown)[1:] == ["  SL · seed 0: epoch 1/10"]


def test_nothing_is_started_when_every_trial_is_finished() -> None:
    shown = display(80)
    shown.expect(2)
    shown.skip()
    shown.skip()
    assert lines_of(shown) == ["trials: 2 of 2 done, 0 running, 0 s"]


def test_time_left_is_what_the_run_says_of_the_trials_that_wait() -> None:
    """Of 4 trials one runs: three wait. Nothing is said before anything was measured, and when none is left."""
    shown, asked = display(80), []

    def left(waiting: int) -> float | None:
        asked.append(waiting)
        return 370.0 if shown.running["a"].metrics else None

    shown.expect(4)
    shown.forecast(left)
    shown.start("a", "SL", config())
    assert "left" not in "\n".join(lines_of(shown))
    shown.epoch("a", {"epoch": 3})
    assert "about 6 min 10 s left" in "\n".join(lines_of(shown))
    assert asked == [3, 3]
    for _ in range(3):
        shown.skip()
    shown.end("a", "finished", {}, 1.0)
    assert "left" not in "\n".join(lines_of(shown))


def test_lines_that_stay_break_between_words_on_a_terminal_and_not_at_all_in_a_file() -> None:
    text = "SL + puzzling · seed 0: failed: " + "wordsofninee " * 12
    on_terminal, in_file = display(60), display(60, terminal=False)
    for shown in (on_terminal, in_file):
        shown.warn(text)
    assert {word for line in printed(on_terminal).splitlines() for word in line.split()} == set(text.split())
    assert max(map(len, printed(on_terminal).splitlines())) <= 60
    assert printed(in_file).rstrip() == text.rstrip()


def test_after_the_last_trial_it_says_what_it_waits_for() -> None:
    shown = LiveDisplay(Console(file=StringIO(), width=80), quiet=True, ending="writing the report", clock=Clock())
    shown.expect(1)
    shown.start("a", "SL", config())
    assert "writing the report" not in lines_of(shown)
    shown.end("a", "finished", {}, 1.0)
    assert lines_of(shown)[-1] == "writing the report"
