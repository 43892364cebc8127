"""TrialConfig: frozen, refused with a reason, and named by what differs from the defaults."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hmtl_ablate import config as module
from hmtl_ablate.config import (
    TrialConfig,
    in_percent,
    metric_info,
    metric_names,
    parse_config,
    trial_id,
)
from hmtl_ablate.errors import CheckpointError, ConfigError
from hmtl_ablate.supervised import Metric

FINGERPRINT = "0123456789abcdef"


def faults(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    return [str(fault) for fault in caught.value.faults]


# Frozen and strict ----------------------------------------------------------------------------------------------------


def test_a_config_is_immutable() -> None:
    config = parse_config({})
    for owner, name in ((config, "seed"), (config.data, "size"), (config.loss, "combine")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(owner, name, getattr(owner, name))


def test_all_faults_are_named_at_once_with_the_nearest_word() -> None:
    assert faults({"data": {"sise": 48}, "training": {"epochs": 0}, "task": "emotoin"}) == [
        "task: 'emotoin' is no supervised task; did you mean 'emotion'? (--import MODULE adds your own)",
        "data.sise: there is no option 'sise'; did you mean 'size'?",
        "training.epochs: input should be greater than or equal to 1, not 0",
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"task": []}, "task: [] is no task; write one of emotion, gender, pose, affect, or a list of them"),
        ({"task": [["pose"]]}, "task: ['pose'] is no supervised task; did you mean 'pose'? "
         "(--import MODULE adds your own)"),
        ({"task": ["pose", "pose"]}, "task: a task is repeated in pose, pose; keep one"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0, not -1"),
        (
            {"data": {"size": 64, "stored": 48}},
            "data.stored: 48 px is smaller than data.size, 64 px; use 64 or more",
        ),
        (
            {"pretext": {"puzzling": {"grid": 8}}, "data": {"size": 30}},
            "pretext.puzzling.grid: a 8 × 8 grid cuts data.size 30 px into tiles of less than 4 px; use 2 to 7",
        ),
        (
            {"task": ["emotion", "pose"], "pretext": {"rotation": {}}},
            "pretext.rotation: a rotated face has another pose than its label; "
            "use supervised_weight: 0 with feed: siamese",
        ),
        ({"loss": {"task_weights": {"afect": 2}}}, "loss.task_weights.afect: 'afect' is no supervised task; did you "
         "mean 'affect'? (--import MODULE adds your own)"),
        ({"loss": {"task_weights": {"pose": 2}}}, "loss.task_weights.pose: the weight of pose is an option of its own; "
         "set loss.pose_weight"),
        ({"loss": {"task_weights": {"affect": "1"}}}, "loss.task_weights.affect: input should be a valid number, not "
         "'1'"),
        ({"loss": {"task_weights": {"affect": 0}}}, "loss.task_weights.affect: input should be greater than 0, not 0"),
        (
            {"task": "affect", "probe": {"kind": "linear"}},
            "task: a probe predicts one task with classes; use emotion or gender",
        ),
        (
            {"training": {"supervised": False}},
            "training.supervised: without the supervised loss and a pretext task there is nothing to train; add a "
            "pretext task",
        ),
    ],
)  # fmt: skip
def test_what_can_not_go_together_is_refused(raw: dict[str, Any], expected: str) -> None:
    assert faults(raw) == [expected]


@pytest.mark.parametrize(
    "raw",
    [
        {"task": "affect", "pretext": {"rotation": {}}},  # affect does not depend on the angle
        {"task": "pose", "pretext": {"rotation": {"supervised_weight": 0}}},
        {"task": "pose", "pretext": {"rotation": {}}, "training": {"supervised": False}},
        {"task": "affect", "probe": {"kind": "direct"}, "model": {"weights": "trial:x"}},
    ],
)
def test_what_can_go_together_is_accepted(raw: dict[str, Any]) -> None:
    assert parse_config(raw).declared() == raw


# Weights and metrics --------------------------------------------------------------------------------------------------


def test_a_task_has_its_own_weight_option_or_one_by_name() -> None:
    loss = parse_config({"loss": {"pose_weight": 0.5, "task_weights": {"affect": 2}}}).loss
    assert [loss.task_weight(name) for name in ("emotion", "pose", "affect")] == [1.0, 0.5, 2.0]
    assert parse_config({}).loss.task_weight("affect") == 1.0


def test_the_first_metric_of_the_first_task_selects() -> None:
    assert parse_config({}).selects_by == "val/accuracy"
    assert parse_config({"task": "affect"}).selects_by == "val/ccc"
    both = parse_config({"task": ["pose", "emotion"]})
    assert both.selects_by == "val/pose/mae"
    assert (both.metrics["pose/mae"], both.metrics["emotion/accuracy"]) == ("min", "max")


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("test/accuracy", Metric("max", "accuracy", "%")),
        ("best/val/emotion/accuracy", Metric("max", "emotion accuracy", "%")),
        ("test/gender/balanced_accuracy", Metric("max", "gender balanced accuracy", "%")),
        ("val/recall/fear", Metric("max", "recall fear", "%")),
        ("test/emotion/recall/fear", Metric("max", "emotion recall fear", "%")),
        ("test/mae_yaw", Metric("min", "MAE yaw", "°")),
        ("test/pose/geodesic", Metric("min", "pose geodesic error", "°")),
        ("best/val/rmse_arousal", Metric("min", "RMSE arousal")),
        ("test/affect/ccc", Metric("max", "affect CCC")),
        ("train/loss", Metric("min", "loss")),
        ("val/puzzling/accuracy", Metric("max", "puzzling accuracy", "%")),
        ("val/inpainting/l1", Metric("max", "inpainting l1")),  # nothing declares it
        ("images_per_second", Metric("max", "images per second")),
    ],
)
def test_a_logged_metric_has_direction_title_and_unit(metric: str, expected: Metric) -> None:
    assert metric_info(metric) == expected
    assert in_percent(metric) == (expected.unit == "%")


def test_metric_names_are_those_of_one_task_then_those_of_several() -> None:
    names = metric_names()
    assert names[:3] == ("accuracy", "macro_f1", "loss")
    assert len(set(names)) == len(names)
    assert names.index("ccc") < names.index("emotion/accuracy") < names.index("affect/ccc")


# The name of a trial --------------------------------------------------------------------------------------------------


def test_pretext_defaults_are_those_that_the_documentation_recommends() -> None:
    """Fault "defaults": `puzzling: {}` meant a shared feed, which costs 7 points at 5 % of FER+."""
    written = {"puzzling": {"grid": 2, "weight": 1.2}, "rotation": {"weight": 0.5}, "inpainting": {"weight": 1.0}}
    for name, options in written.items():
        recommended = {**options, "feed": "siamese", "supervised_weight": 0.5}
        assert parse_config({"pretext": {name: {}}}) == parse_config({"pretext": {name: recommended}})
    shared = parse_config({"pretext": {"puzzling": {"feed": "shared"}}})
    assert (shared.passes_per_image, parse_config({"pretext": {"puzzling": {}}}).passes_per_image) == (1, 2)


def test_a_trials_name_is_pinned() -> None:
    """A change of these renames every trial of every store: none of them would be found again."""
    assert trial_id(TrialConfig(), FINGERPRINT) == "b57bb5fc031c4b00"
    hmtl = {"task": ["emotion", "pose"], "pretext": {"puzzling": {"feed": "siamese"}}, "seed": 3}
    assert trial_id(parse_config(hmtl), FINGERPRINT) == "6ca72470f31975ac"


def test_defaults_do_not_count_in_a_trials_name() -> None:
    plain = trial_id(parse_config({}), FINGERPRINT)
    stored = parse_config({}).model_dump(mode="json")
    assert trial_id(parse_config(stored), FINGERPRINT) == plain
    assert trial_id(parse_config({"loss": {"task_weights": {"affect": 1.0}}}), FINGERPRINT) == plain
    assert trial_id(parse_config({"task": ["emotion"]}), FINGERPRINT) == plain


def test_options_seed_pack_and_numerics_count_in_a_trials_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        trial_id(parse_config({}), FINGERPRINT),
        trial_id(parse_config({"seed": 1}), FINGERPRINT),
        trial_id(parse_config({"data": {"size": 64}}), FINGERPRINT),
        trial_id(parse_config({"loss": {"task_weights": {"affect": 2}}}), FINGERPRINT),
        trial_id(parse_config({}), "0" * 16),
    }
    monkeypatch.setattr(module, "NUMERICS_VERSION", -1)
    names.add(trial_id(parse_config({}), FINGERPRINT))
    assert len(names) == 6


def test_the_order_of_pretext_tasks_in_the_file_does_not_count() -> None:
    one = parse_config({"pretext": {"inpainting": {}, "puzzling": {}}})
    other = parse_config({"pretext": {"puzzling": {}, "inpainting": {}}})
    assert list(one.pretext) == ["puzzling", "inpainting"]
    assert trial_id(one, FINGERPRINT) == trial_id(other, FINGERPRINT)


def test_a_weights_file_counts_by_its_content(tmp_path: Path) -> None:
    def named(path: Path) -> str:
        return trial_id(parse_config({"model": {"weights": f"file:{path}"}}), FINGERPRINT)

    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    assert named(tmp_path / "a") == named(tmp_path / "b") != named(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"model\.weights: can't read .*missing"):
        named(tmp_path / "missing")


# Other views of a config ----------------------------------------------------------------------------------------------


def test_replaced_changes_some_options_and_checks_the_result() -> None:
    config = parse_config({"data": {"size": 64}, "seed": 5})
    changed = config.replaced({("data", "fraction"): 0.5, ("pretext", "puzzling", "grid"): 3})
    assert changed.declared() == {
        "data": {"size": 64, "fraction": 0.5},
        "pretext": {"puzzling": {"grid": 3}},
        "seed": 5,
    }
    with pytest.raises(ConfigError, match=r"data\.fraction"):
        config.replaced({("data", "fraction"): 2})


def test_chains_and_passes_follow_the_feeds() -> None:
    shared = parse_config({"pretext": {"puzzling": {"feed": "shared"}, "inpainting": {"feed": "shared"}}})
    assert (shared.chains, shared.passes_per_image) == ((("puzzling", "inpainting"),), 1)
    siamese = parse_config(
        {"data": {"views": 2}, "pretext": {"puzzling": {"feed": "siamese"}, "rotation": {"joins": "puzzling"}}}
    )
    assert (siamese.chains, siamese.passes_per_image) == ((("puzzling", "rotation"),), 3)


def test_weight_sources_are_the_options_that_name_weights() -> None:
    config = parse_config({"model": {"weights": "trial:stage"}, "pretext": {"inpainting": {"perceptual": "vgg16"}}})
    assert config.weight_sources == {
        ("model", "weights"): "trial:stage",
        ("pretext", "inpainting", "perceptual_weights"): "imagenet",
    }
