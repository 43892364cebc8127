"""The command line in this process: parsing, messages, exit codes. No Ray, MLflow or training."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from hmtl_ablate import __version__, checks, cli
from hmtl_ablate.cli import screen
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.running import run as running
from hmtl_ablate.running.summary import Left, RunSummary
from tests.conftest import SPACES  # type: ignore[import-not-found]


class Done(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `hmtl-ablate …` in a folder of its own; nobody ever sees a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])

    def run(*words: object) -> Done:
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(code, out, err)

    return run


def refused(done: Done, *words: str) -> None:
    assert done.code == 2, done
    for word in words:
        assert word in done.err, done.err


def test_help_and_version(call: Call) -> None:
    assert call("--version") == Done(0, f"hmtl-ablate {__version__}\n", "")
    listed = call("--help").out
    assert re.findall(r"^  (\w+)  ", listed[listed.index("Commands") :], re.M) == [
        "run",
        "plan",
        "report",
        "ui",
        "show",
        "best",
        "compare",
        "predict",
        "evaluate",
        "export",
        "bundle",
        "verify",
        "import",
        "clean",
        "schema",
        "data",
    ]
    assert "Run a study, skipping finished trials." in " ".join(call("run", "--help").out.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("pln",), "Did you mean 'plan'"),
        (("plan",), "FILE"),
        (("run", "s.yaml", "--max-concurrent", "0"), "--max-concurrent"),
        (("run", "s.yaml", "--engine", "rai"), "--engine"),
        (("export", "0" * 16, "--to", "model.pth"), "no format of export"),
        (("export", "0" * 16, "--to", "model"), "there is no such trial"),
        (("report", "--format", "htm"), "there is no report format 'htm'"),
        (("plan", "nowhere.yaml"), "nowhere.yaml"),
        (("data", "check", "ferplus=/nowhere"), "/nowhere"),
        (("data", "pack", "folder=/nowhere"), "/nowhere"),
        (("import", "/nowhere"), "no trial folder here"),
    ],
)
def test_wrong_words(call: Call, words: tuple[str, ...], expected: str) -> None:
    refused(call(*words), expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--profile", "papr"), "papr"),
        (("--set", "training.epoch=3"), "epochs"),
        (("--seeds", "a,b"), "--seeds a,b"),
        (("--seeds", ""), "--seeds"),
        (("--set", "model.backbone=efficientnet_bo"), "efficientnet_b"),
        (("--import", "no_such_module_here"), "no_such_module_here"),
        (("--set", "data.name=ferplus", "--set", "data.images=null"), "--data ferplus=PATH"),
        (("--engine", "local", "--address", "a:1"), "local engine"),
        (("--runs", "/proc/1/nowhere"), "--runs /proc/1/nowhere"),
        (("--set", "task=[emotion,age]"), "'age' is no supervised task"),
        (("--set", "model.weights=package"), "set model.backbone: tf_efficientnet_lite0, or use imagenet"),
        (("--set", "model.weights=nowhere"), "use null, imagenet, package, file:PATH or trial:NAME"),
        (("--set", "probe.kind=linear", "--set", "probe.folds=200"), "less than or equal to 100"),
    ],
)
def test_wrong_options_of_run(call: Call, tiny: Path, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    tiny.write_text(tiny.read_text().split("  SL + puzzling")[0] + "seeds: [0]\n")
    refused(call("run", tiny, *words), expected)
    assert not (tmp_path / "runs" / "trials").exists()


def test_a_malformed_study_names_place_and_offender(call: Call, tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("batch_size", "batchsize"))
    refused(call("plan", tiny), "tiny.yaml:5:", "batchsize", "batch_size")


def test_plan_lists_the_trials(call: Call, tiny: Path, tmp_path: Path) -> None:
    done = call("plan", tiny)
    assert done.code == 0
    assert done.out.splitlines()[:6] == [
        "tiny (quick): Does it run?",
        "  start  SL · seed 0: 2 epochs, 1 pass per image",
        "  start  SL + puzzling · seed 0: 2 epochs, 2 passes per image",
        "  start  SL · seed 1: 2 epochs, 1 pass per image",
        "  start  SL + puzzling · seed 1: 2 epochs, 2 passes per image",
        "trials: 4 to start, 0 already finished",
    ]
    assert "image passes: 768 (images not counted in a pack)" in done.out  # 2 × 64 (1 + 2) a seed and epoch
    asked = f"{screen.program()} plan {tiny} --calibrate"
    assert f"time of SL, SL + puzzling: unknown until calibrated: {asked}" in done.out
    assert not (tmp_path / "runs").exists()


def test_plan_says_what_a_path_may_train_at_most(call: Call, tiny: Path) -> None:
    with tiny.open("a") as file:
        file.write("designs: {way: {kind: path, components: {a: {data.views: 2}, b: {training.clip: 1.0}}}}\n")
    done = call("plan", tiny, "--seeds", "0,1,2")
    assert done.code == 0
    assert [line for line in done.out.splitlines() if line.startswith(("  design", "trials:"))] == [
        "  design way: a path through 2 components by best/val/accuracy: at most 3 configurations with seed 0, then "
        "its steps with seeds 1, 2; at most 4 trials more",
        "trials: 9 to start, 0 already finished, and 1 path",
    ]


def test_plan_as_json(call: Call, tiny: Path) -> None:
    found = json.loads(call("plan", tiny, "--json", "--engine", "local", "--seeds", "0").out)
    assert (found["study"], found["engine"], found["at_once"], found["start"]) == ("tiny", "local", 1, 2)
    assert [arm["image_passes"] for arm in found["arms"]] == [128, 256]
    assert [pack["state"] for pack in found["packs"]] == ["to build"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "model.weights=file:/nowhere/at/all.pth"), "can't read /nowhere/at/all.pth"),
        (("--runs", "/proc/1/nowhere"), "--runs /proc/1/nowhere: can't be written"),
        (("--engine", "local", "--set", "resources.workers=2"), "set resources.workers=1"),
    ],
)
def test_plan_refuses_what_a_run_would(call: Call, tiny: Path, words: tuple[str, ...], expected: str) -> None:
    refused(call("plan", tiny, *words), expected)


def test_plan_says_where_a_study_fits_that_this_machine_is_too_small_for(call: Call, tiny: Path) -> None:
    done = call("plan", tiny, "--set", "resources.cpus=999")
    assert done.code == 0
    assert "a trial needs 999 CPU" in done.out
    assert "--address HOST:PORT" in done.out
    refused(call("plan", tiny, "--set", "resources.cpus=999", "--calibrate"), "a trial needs 999 CPU")


def test_a_budget_is_a_time(call: Call, tiny: Path) -> None:
    refused(call("run", tiny, "--budget", "8 hours"), "budget '8 hours' is no time", "30m, 8h, 1.5h or 2d")


def test_plan_says_which_data_are_missing(call: Call, tiny: Path) -> None:
    done = call("plan", tiny, "--set", "data.name=ferplus", "--set", "data.images=null")
    assert done.code == 0
    assert "--data ferplus=PATH" in done.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "model.backbone=efficientnet_bo"), "timm has no model 'efficientnet_bo'; did you mean"),
        (("--set", "model.backbone=test_vit", "--set", "data.size=50"), "50 px can't be cut into the patches of 16 px"),
        (("--data", "ferplus=/nowhere/at/all"), "/nowhere/at/all: there is no such file or folder"),
        (("--data", "ferpuls=faces"), "there is no dataset 'ferpuls'; did you mean 'ferplus'? (--import MODULE"),
        (("--data", "/data/FERPlus"), "is a path without the name of its dataset; write e.g. --data ferplus=/data"),
        (("--data", "ferplus=empty"), "empty: this folder is empty"),
        (("--set", "epochs=5"), "write --set training.epochs=…"),
        (("--set", "grid=3"), "write --set pretext.puzzling.grid=… or --set pretext.rotation.grid=…"),
        (("--set", "batchsize=5"), "write --set training.batch_size=…"),
        (("--set", "workers=2"), "write --set resources.workers=…"),
        (("--set", "trials=2"), "write --set search.trials=…"),
        (("--set", "task=age"), "'age' is no supervised task; valid: affect, emotion, gender, pose (--import MODULE"),
        (
            ("--set", "pretext.jigsaw.weight=2"),
            "pretext task 'jigsaw'; valid: inpainting, puzzling, rotation (--import MODULE",
        ),
        (("--import", "my_lab.py"), "write the module's name, without .py or folders: --import my_lab"),
    ],
)
def test_plan_refuses_what_does_not_exist(
    call: Call, tiny: Path, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    """Fault D: before, `plan` listed trials that no run could start."""
    (tmp_path / "empty").mkdir()
    refused(call("plan", tiny, *words), expected)
    assert not (tmp_path / "runs").exists()


def test_plan_refuses_a_label_that_the_pack_at_hand_lacks(call: Call, tiny: Path, tmp_path: Path) -> None:
    for number in range(24):
        folder = tmp_path / "faces" / ("happy" if number % 2 else "sad")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    words = ("plan", tiny, "--data", "folder=faces", "--set", "task=pose")
    assert call(*words).code == 0  # nothing is known of the data yet
    assert call("data", "pack", "folder=faces", "--size", 32).code == 0
    refused(call(*words), "has no labels for task 'pose'; it has: emotion")


def test_a_study_without_a_question_has_no_colon(call: Call, tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("question: Does it run?\n", ""))
    assert call("plan", tiny).out.splitlines()[0] == "tiny (quick)"


@pytest.mark.parametrize("command", ["check", "pack"])
def test_a_dataset_without_its_name_is_asked_for(call: Call, command: str) -> None:
    refused(call("data", command, "/data/FERPlus"), "write NAME=PATH", "ferplus=/data/FERPlus")


def test_timm_networks_are_known_without_timm() -> None:
    """All names, so that `plan` needs no import; and each network whose file knows a size is built to find out."""
    import timm

    known = checks.timm_networks()
    assert set(known) <= set(timm.list_models())
    assert len(known) > 0.9 * len(timm.list_models())
    assert (known["test_vit"], known["vit_tiny_patch16_224"], known["swin_tiny_patch4_window7_224"]) == (True,) * 3
    assert (known["test_resnet"], known["tf_efficientnet_lite0"], known["vgg16"]) == (False,) * 3


def test_every_search_space_has_a_plan(call: Call) -> None:
    for path in sorted(SPACES.glob("*.yaml")):
        assert call("plan", path).code == 0


def test_schema_is_json(call: Call) -> None:
    assert json.loads(call("schema").out)["type"] == "object"


def test_data_pack_and_check_say_what_is_there(call: Call, tmp_path: Path) -> None:
    for name in ("happiness", "sadness"):
        folder = tmp_path / "faces" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng([number, len(name)]).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), pixels)
    checked = call("data", "check", "folder=faces", "--size", 32)
    assert checked.code == 0, checked.err
    assert "24 images" in checked.out
    assert not (tmp_path / "runs").exists()
    assert call("data", "pack", "folder=faces", "--size", 32).code == 0
    assert list((tmp_path / "runs" / "packs").glob("folder-32px-*/manifest.json"))
    (tmp_path / "faces" / "sadness" / "0.png").write_bytes(b"")
    broken = call("data", "check", "folder=faces", "--size", 32)
    refused(broken, "1 %")
    assert "0.png" in broken.out + broken.err
    for number in range(12):
        for name in ("happiness", "sadness"):
            (tmp_path / "faces" / name / f"{number}.png").write_bytes(b"")
    refused(call("data", "check", "folder=faces", "--size", 32), "24 of 24 rows are faulty")


def test_data_check_takes_options_of_the_pack_and_draws_a_sheet(call: Call, tmp_path: Path) -> None:
    checked = call("data", "check", "rendered", "--size", 16, "--set", "face_crop=none", "--sheet", "no/s.png")
    refused(checked, "there is no folder no")
    refused(call("data", "check", "rendered", "--set", "data.votes=majorty"), "did you mean 'majority'?")
    refused(call("data", "check", "rendered", "--set", "data.votes=soft"), "has no such choice, only ferplus")
    refused(call("data", "check", "rendered", "--set", "training.epochs=3"), "one of the keys data.votes, data.frames")


def fail(error: BaseException) -> Callable[..., Any]:
    def raise_it(*args: object, **options: object) -> None:
        raise error

    return raise_it


def test_an_error_of_the_user_is_its_message(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_ablate.study.schema_text", fail(HmtlError("one\ntwo")))
    assert call("schema") == Done(2, "", "one\ntwo\n")


def test_ctrl_c_says_how_to_resume(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_ablate.study.schema_text", fail(KeyboardInterrupt()))
    assert call("schema") == Done(130, "", "interrupted; run the same command again to resume\n")


def test_a_defect_of_ours_is_one_line_and_a_file(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("hmtl_ablate.study.schema_text", fail(ZeroDivisionError("by zero")))
    done = call("schema")
    assert (done.code, done.out) == (70, "")
    [line] = done.err.splitlines()
    assert line.startswith("hmtl-ablate has a defect: ZeroDivisionError: by zero.")
    [log] = tmp_path.glob("hmtl-ablate-*.txt")
    assert line.endswith(str(log))
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("summary", "code", "lines"),
    [
        (
            RunSummary(done=2, skipped=1),
            0,
            ["trials: 2 trained, 1 finished before · store: runs", "next: hmtl-ablate report, hmtl-ablate ui"],
        ),
        (
            RunSummary(done=1, pruned=2, failed=[("SL", "NaN", Path("log"))]),
            1,
            ["trials: 1 trained, 0 finished before, 2 stopped early, 1 failed · store: runs"],
        ),
        (
            RunSummary(left=Left(("SL · seed 1",), 0, 61.0, 1800.0)),
            130,
            [
                "trials: 0 trained, 0 finished before · store: runs",
                "stopped at the budget of 30 min 00 s; left to do: 1 trial, about 1 min 01 s (SL · seed 1); run "
                "the same command again to resume",
            ],
        ),
        (
            RunSummary(interrupted=True),
            130,
            ["trials: 0 trained, 0 finished before · store: runs", "stopped; run the same command again to resume"],
        ),
    ],
)
def test_how_a_run_ended_is_its_exit_code(
    call: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch, summary: RunSummary, code: int, lines: list[str]
) -> None:
    given: dict[str, Any] = {}

    def prepared(study: object, store: Path, tracking_uri: str | None, progress: object) -> checks.Prepared:
        return checks.Prepared(store, "packs", tracking_uri)  # type: ignore[arg-type]

    def run_study(study: object, **options: Any) -> RunSummary:
        given.update(options)
        return summary

    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/{name}")
    monkeypatch.setattr(checks, "prepare", prepared)
    monkeypatch.setattr(running, "run_study", run_study)
    done = call("run", tiny, "--quiet", "--tracking-uri", "sqlite:///x", "--engine", "local", "--no-pictures")
    assert (done.code, done.out.splitlines()) == (code, lines)
    assert (given["store"], given["packs"], given["tracking"]) == (Path("runs"), "packs", "sqlite:///x")
    assert (given["options"].engine, given["options"].pictures) == ("local", False)


@pytest.mark.parametrize(
    ("found", "called", "shown"),
    [
        ("/usr/bin/hmtl-ablate", ".venv/bin/hmtl-ablate", "hmtl-ablate"),
        (None, ".venv/bin/hmtl-ablate", ".venv/bin/hmtl-ablate"),
        (None, "/x/hmtl_ablate/__main__.py", "/x/python -m hmtl_ablate"),
    ],
)
def test_what_to_run_next_can_be_run(
    monkeypatch: pytest.MonkeyPatch, found: str | None, called: str, shown: str
) -> None:
    """Fault D: the bare name is found only in an active environment."""
    monkeypatch.setattr("shutil.which", lambda name: found)
    monkeypatch.setattr("sys.argv", [called])
    monkeypatch.setattr("sys.executable", "/x/python")
    assert screen.program() == shown


def test_a_reader_that_leaves_is_no_defect(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_ablate.cli.root._drop_output", lambda: None)  # the test's own stdout stays open
    monkeypatch.setattr("hmtl_ablate.study.schema_text", fail(BrokenPipeError()))
    assert call("schema") == Done(141, "", "")
