"""`run --when-done CMD`: what the command gets, and that it never changes how the run ends."""

import json
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

from hmtl_ablate import checks, cli
from hmtl_ablate.cli import when_done
from hmtl_ablate.cli.when_done import Ending, announced, command_words
from hmtl_ablate.errors import HmtlError, RunLost
from hmtl_ablate.running import run as running
from hmtl_ablate.running.summary import Left, RunSummary
from hmtl_ablate.study import load_study
from tests.conftest import Cli, start  # type: ignore[import-not-found]
from tests.running.conftest import StubTrainer  # type: ignore[import-not-found]

Run = Callable[..., tuple[int, dict[str, Any] | None, str]]


@pytest.fixture
def run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the tiny study with `end` in the place of its trials; exit code, what the hook got, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where the traceback of a defect goes
    monkeypatch.setattr(checks, "prepare", lambda *_: checks.Prepared(tmp_path, "packs", None))  # type: ignore[arg-type]
    summary = tmp_path / "summary.json"

    def call(end: RunSummary | BaseException, *words: str, hook: str = f"sh -c 'cat > {summary}'") -> Any:
        def run_study(*_: object, progress: Any, **options: object) -> RunSummary:
            if isinstance(end, BaseException):
                progress.done, progress.failed = 1, 1
                raise end
            return end

        monkeypatch.setattr(running, "run_study", run_study)
        code = cli.main(["run", str(tiny), "--engine", "local", "--quiet", "--when-done", hook, *words])
        return code, json.loads(summary.read_text()) if summary.exists() else None, capfd.readouterr().err

    return call


@pytest.mark.parametrize(
    ("end", "code", "status", "message", "counts"),
    [
        (RunSummary(done=2, skipped=1), 0, "finished", None, (2, 1, 0, 0)),
        (RunSummary(done=1, pruned=2, failed=[("SL", "NaN", Path("log"))]), 1, "failed", None, (1, 0, 2, 1)),
        (RunSummary(interrupted=True), 130, "interrupted", None, (0, 0, 0, 0)),
        (
            RunSummary(left=Left(("SL · seed 1",), 0, 61.0, 1800.0)),
            130,
            "interrupted",
            "stopped at the budget of 30 min 00 s; left to do: 1 trial, about 1 min 01 s (SL · seed 1); run the same "
            "command again to resume",
            (0, 0, 0, 0),
        ),
        (RunLost("the cluster is gone"), 75, "failed", "the cluster is gone", (1, 0, 0, 1)),
        (KeyboardInterrupt(), 130, "interrupted", None, (1, 0, 0, 1)),
        (BrokenPipeError(), 141, "failed", None, (1, 0, 0, 1)),  # nobody reads the output any more
        (ZeroDivisionError("by zero"), 70, "failed", "ZeroDivisionError: by zero", (1, 0, 0, 1)),
    ],
)
def test_the_command_gets_how_the_run_ended(
    run: Run, end: RunSummary | BaseException, code: int, status: str, message: str | None, counts: tuple[int, ...],
    tmp_path: Path,
) -> None:  # fmt: skip
    done, found, _ = run(end)
    assert done == code
    assert found is not None
    assert (found["study"], found["profile"], found["store"]) == ("tiny", "quick", str(tmp_path / "runs"))
    assert (found["status"], found["exit_code"], found["message"]) == (status, code, message)
    assert tuple(found["trials"].values()) == counts
    assert list(found["trials"]) == ["finished", "already_finished", "pruned", "failed"]
    assert found["seconds"] >= 0
    assert (found["answer"], found["best"], found["report"]) == ([], None, None)
    failed = end.failed if isinstance(end, RunSummary) else []
    assert found["failed"] == [
        {"trial": "SL", "reason": "NaN", "log": str(tmp_path / "log")} for name, reason, log in failed
    ]


@pytest.mark.parametrize(
    ("hook", "fault"),
    [
        ("sh -c 'exit 3'", "warning: --when-done sh -c 'exit 3': ended with exit code 3"),
        ("./broken", "warning: --when-done ./broken: can't be started: Exec format error"),
        ("sleep 60", "warning: --when-done sleep 60: stopped after 0.2 s"),
    ],
)
def test_a_command_that_fails_is_one_warning_and_no_other_exit_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, fault: str
) -> None:
    monkeypatch.setattr(when_done, "LIMIT", 0.2)
    (tmp_path / "broken").write_text("\0")
    (tmp_path / "broken").chmod(0o755)
    for end, code in ((RunSummary(), 0), (RunSummary(interrupted=True), 130)):
        done, _, error = run(end, hook=hook)
        assert (done, error.splitlines()) == (code, [fault])


def test_a_command_that_reads_nothing_is_no_fault(run: Run) -> None:
    assert run(RunSummary(), hook="true") == (0, None, "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("no-such-program-here now", "there is no program 'no-such-program-here'; name one on the PATH"),
        ("./tiny.yaml", "there is no program './tiny.yaml'"),  # it can't be executed
        ("sh -c 'cat", "No closing quotation; close the quotes"),
        ("  ", "name a command, e.g. --when-done 'python notify.py'"),
    ],
)
def test_a_command_that_can_not_be_run_is_refused_before_any_trial(run: Run, text: str, fault: str) -> None:
    code, found, error = run(AssertionError("a trial ran"), hook=text)
    assert (code, found) == (2, None)
    assert fault in error
    assert error.count("\n") == 1


def test_words_are_split_as_a_shell_splits_them() -> None:
    assert command_words("sh -c 'a | b' \"c d\"") == ("sh", "-c", "a | b", "c d")


def test_no_password_is_in_the_summary(tmp_path: Path) -> None:
    uri = "postgresql://me:s3cr%20et@db/optuna"
    study = load_study({"name": "tiny", "variants": {"SL": {}}, "seeds": [0]})
    ending = Ending(study, tmp_path, (uri,))
    ending.summary = RunSummary(failed=[("SL", f"no answer from {uri}", Path("log"))])
    found = json.dumps(ending.to_json(HmtlError("user me with 's3cr et' is refused; see http://a:other@b/")))
    assert "s3cr" not in found
    assert "other" not in found
    assert "http://a:***@b/" in found


def test_without_a_command_nothing_happens(tmp_path: Path) -> None:
    study = load_study({"name": "tiny", "variants": {"SL": {}}, "seeds": [0]})
    with pytest.raises(typer.Exit), announced((), Ending(study, tmp_path)):
        raise typer.Exit(1)


@pytest.mark.usefixtures("store")
def test_a_finished_run_has_its_answer_best_trial_and_report(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the training itself is real."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "run_study", partial(running.run_study, trainer=StubTrainer()))
    hook = ("--when-done", "sh -c 'cat > summary.json'")
    assert cli.main(["run", str(tiny), "--engine", "local", "--seeds", "0", *hook]) == 0
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["trials"] == {"finished": 2, "already_finished": 0, "pruned": 0, "failed": 0}
    assert found["answer"]
    assert all(isinstance(sentence, str) for sentence in found["answer"])
    best = found["best"]
    assert best["trial"] in ("tiny/SL/0", "tiny/SL + puzzling/0")
    assert best["metric"] == "val/accuracy"
    assert (tmp_path / "runs/trials" / best["trial_id"]).is_dir()
    assert best["value"] == pytest.approx(0.2)  # of the second epoch
    assert Path(found["report"]) == tmp_path / "runs/tiny.html"
    assert Path(found["report"]).exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_on_ray_that_is_stopped_says_so_to_the_command(
    number: signal.Signals, cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    hook = ("--when-done", "sh -c 'cat > summary.json'")
    driver = start(["run", tiny, "--set", "training.epochs=10000", "--max-concurrent", 1, *hook], tmp_path)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not any((tmp_path / "runs").glob("trials/*/metrics.jsonl")):
        time.sleep(0.2)
    driver.send_signal(number)
    assert driver.wait(timeout=180) == 130
    found = json.loads((tmp_path / "summary.json").read_text())
    assert (found["status"], found["exit_code"]) == ("interrupted", 130)
    assert found["trials"]["finished"] == 0
    done = cli("run", tiny, "--seeds", "0", *hook)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["trials"]["finished"] == 2
