"""Ctrl-C at any time is one line and exit code 130; what Ray, MLflow and C libraries write is not on the screen
(fault C13)."""

import importlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hmtl_ablate import __main__ as program
from hmtl_ablate.cli import main, screen
from tests.conftest import environment  # type: ignore[import-not-found]


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The handlers of the program, for one test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    monkeypatch.setattr(sys, "unraisablehook", program.lost)
    signal.signal(signal.SIGINT, program.interrupt)
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def waited(action: Callable[[], object]) -> None:
    action()
    time.sleep(5)


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_waits_for_the_end_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "edge_slow_module.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(0.2)\nWHOLE = True\n"
    )
    with pytest.raises(KeyboardInterrupt):
        waited(lambda: importlib.import_module("edge_slow_module"))
    assert sys.modules.pop("edge_slow_module").WHOLE


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_outside_an_import_comes_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


class Finalised:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_in_a_finaliser_is_not_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        waited(Finalised)
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_while_the_command_line_is_parsed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperGroup.make_context", interrupted)
    assert main(["schema"]) == 130
    assert capsys.readouterr() == ("", "interrupted; run the same command again to resume\n")


def test_ctrl_c_in_code_that_was_a_text_ends_with_the_exit_code(tmp_path: Path) -> None:
    """Python itself notes where it was, and would end the process by the signal."""
    (tmp_path / "edge_program.py").write_text(
        "import sys\nimport typer.core\nfrom hmtl_ablate.__main__ import main\n\n"
        "def interrupted(*args, **options):\n    exec('raise KeyboardInterrupt')\n\n"
        "typer.core.TyperGroup.make_context = interrupted\nsys.exit(main())\n"
    )
    words = [sys.executable, "-m", "edge_program", "schema"]
    ended = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == "interrupted; run the same command again to resume\n"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.5, 4.0, 9.0])
def test_ctrl_c_before_any_trial(seconds: float, tiny: Path, tmp_path: Path) -> None:
    """Whatever is loaded, opened or started at that time."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "hmtl_ablate", "run", str(tiny), "--set", "training.epochs=10000"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(seconds)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=180)
    assert driver.returncode == 130, out + err
    assert "run the same command again to resume" in out + err or err == "interrupted\n"
    assert "Traceback" not in out + err
    assert len((out + err).splitlines()) <= 5


def test_only_the_console_reaches_the_screen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = logging.getLogger("edge_noise")
    noise.addHandler(logging.StreamHandler(sys.__stderr__))  # as Ray's and MLflow's: it holds the real stream
    log = tmp_path / "run.log"
    with screen.own_screen(log) as console:
        noise.error("a traceback")
        os.write(1, b"a warning of gRPC\n")
        os.write(2, b"from C\n")
        subprocess.run(["echo", "from a child"], check=True)
        console.print("hello")
    os.write(1, b"again\n")
    out, err = capfd.readouterr()
    assert sorted(out.splitlines()) == ["again", "hello"]
    assert err == ""
    assert {"a warning of gRPC", "from C", "from a child"} <= set(log.read_text().splitlines())


def test_a_run_adds_to_its_log_until_it_is_large(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    for expected in ("one\n", "one\none\n"):
        with screen.own_screen(log):
            os.write(1, b"one\n")
        assert log.read_text() == expected
    log.write_bytes(b"x" * (screen.LOG_LIMIT + 1))
    with screen.own_screen(log):
        os.write(1, b"one\n")
    assert log.read_text() == "one\n"
