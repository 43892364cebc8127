"""What a study will cost, as numbers and as text: hand-worked sums over arms."""

from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.planning.calibration import Calibration, Measurement
from hmtl_ablate.planning.cost import Counts
from hmtl_ablate.planning.estimate import Estimate, PackNeed, Place, PlannedTrial, estimate_of
from hmtl_ablate.planning.pace import key_of
from hmtl_ablate.planning.show import estimate_text, many, size
from hmtl_ablate.study import Study, load_study, needed

TEXT = """\
name: s
base: {data: {images: 640}, training: {epochs: 2, batch_size: 64, warmup_epochs: 0}}
stages: {first: {training.supervised: false, pretext: {rotation: {feed: shared}}}}
variants:
  SL: {}
  two: {data.views: 2}
  tuned: {model.weights: "trial:first"}
  again: {data.views: 2}
seeds: [0, 1, 2]
"""
SEARCH = """\
search:
  base: {pretext: {puzzling: {}}}
  space: {training.epochs: {choice: [1, 3]}, pretext.puzzling.feed: {choice: [shared, siamese]}}
  sampler: grid
  pruner: none
  trials: 4
  racing: null
  confirm: true
"""
COUNTS = Counts(train=512, val=64, test=64, labelled=640)
PLACE = Place("local", "A", 1)


def study_of(folder: Path, text: str = TEXT) -> Study:
    (folder / "s.yaml").write_text(text)
    return load_study(folder / "s.yaml")


def estimated(study: Study, finished: tuple[tuple[str, int], ...] = (), **options: Any) -> Estimate:
    trials = [
        PlannedTrial(v.name, seed, v.stage, "skip" if (v.name, seed) in finished else "start", "", config)
        for v, seed, config in needed(study)
    ]
    given: dict[str, Any] = {
        "place": PLACE,
        "calibration": Calibration(),
        "counts": lambda config: COUNTS,
        "scores": {},
    }
    return estimate_of(study, trials, **(given | options))


def calibrated(*configs: TrialConfig, **known: Any) -> Calibration:
    """Training at 512 passes a second, evaluation at 3,200 images; 1 s of start."""
    values = {"train_rate": 512.0, "evaluation_rate": 3200.0, "start": 1.0} | known
    found = [Measurement(key=key_of(one, resources(), "A", 1), **values) for one in configs]
    return Calibration({one.key.name: one for one in found})


def resources() -> Any:
    from hmtl_ablate.study import Resources

    return Resources()


def test_passes_of_each_arm_and_in_all(tmp_path: Path) -> None:
    """8 steps of 64 images: 512 a view and epoch. An arm that equals another one is trained there; finished trials
    cost nothing."""
    found = estimated(study_of(tmp_path), finished=(("SL", 0), ("SL", 1)))
    arms = {arm.name: (arm.start, arm.finished, arm.image_passes) for arm in found.arms}
    assert arms == {
        "first": (3, 0, 3 * 1024),
        "SL": (1, 2, 1024),
        "two": (3, 0, 3 * 2048),
        "tuned": (3, 0, 3 * 1024),
        "again": (0, 0, 0),
    }
    assert (found.start, found.finished, found.image_passes) == (10, 2, 13 * 1024)
    assert (found.seconds, found.memory, found.disk) == (None, None, None)
    assert found.uncalibrated == ("first", "SL", "two", "tuned")
    assert {arm.kind for arm in found.arms} == {"stage", "variant"}


def test_seconds_of_an_arm_and_of_the_run(tmp_path: Path) -> None:
    """SL: 1,024 passes at 512/s: 2 s; val after 2 epochs, and val and test once: 256 images at 3,200/s: 0.08 s; start:
    1 s."""
    study = study_of(tmp_path, TEXT.replace("  two:", "# two:").replace("  again:", "# again:"))
    sl = study.variants[0].config(0)
    found = estimated(study, calibration=calibrated(sl, memory=500.0, disk=10.0))
    arm = next(arm for arm in found.arms if arm.name == "SL")
    assert arm.seconds == pytest.approx(3 * 3.08)
    assert (arm.measured, arm.memory, arm.disk, arm.gpu_hours) == (True, 500.0, 30.0, 0.0)
    stage = next(arm for arm in found.arms if arm.name == "first")
    assert stage.measured is False  # of the same network, size and precision
    # 64 of val, that rotation is scored on, after each epoch
    assert stage.seconds == pytest.approx(3 * (1 + 1024 / 512 + 128 / 3200))
    assert found.seconds == pytest.approx(sum(arm.seconds or 0 for arm in found.arms))
    two = estimated(study, calibration=calibrated(sl), place=Place("ray", "A", 2))
    assert two.seconds is not None
    assert found.seconds is not None
    assert found.seconds / 2 <= two.seconds < found.seconds


def test_gpu_hours(tmp_path: Path) -> None:
    study = study_of(tmp_path, TEXT + "resources: {gpus: 0.5}\n")
    key = key_of(study.variants[0].config(0), study.resources, "A", 1)
    calibration = Calibration({key.name: Measurement(key=key, train_rate=512.0, evaluation_rate=3200.0)})
    arm = next(arm for arm in estimated(study, calibration=calibration).arms if arm.name == "SL")
    assert arm.gpu_hours == pytest.approx(3 * 2.08 * 0.5 / 3600)


def test_a_search_is_a_range_and_its_confirmation_an_upper_bound(tmp_path: Path) -> None:
    """4 trials of 512 passes (1 epoch, shared) to 3,072 (3 epochs, siamese). The costliest winner is trained with the
    two other seeds, next to SL of one view (1,536) and of two (3,072)."""
    study = study_of(tmp_path, TEXT + SEARCH)
    found = estimated(study)
    assert found.search is not None
    assert found.search.image_passes == (4 * 512, 4 * 3072)
    assert (found.search.confirmation, found.search.confirmation_passes) == (6, 2 * (3072 + 1536 + 3072))
    assert found.image_passes == 15 * 1024 + 4 * 3072 + 15360
    assert found.search.seconds is None


def test_unknown_images_leave_the_passes_unknown(tmp_path: Path) -> None:
    found = estimated(study_of(tmp_path), counts=lambda config: None)
    assert (found.image_passes, found.counted) == (None, False)
    assert all(arm.image_passes is None for arm in found.arms if arm.start)


def test_the_smallest_difference_is_in_points(tmp_path: Path) -> None:
    """Differences of 1, 2 and 3 points over three seeds: sd 1; three pairs detect 3.26 sd (noncentral t)."""
    scores = {"SL": {0: 0.6, 1: 0.6, 2: 0.6}, "two": {0: 0.61, 1: 0.62, 2: 0.63}}
    found = {arm.name: arm.smallest_difference for arm in estimated(study_of(tmp_path), scores=scores).arms}
    assert found["two"] == pytest.approx(3.26, abs=0.01)
    assert found["tuned"] == pytest.approx(found["two"])  # nothing of its own: the pooled spread
    assert (found["SL"], found["first"]) == (None, None)


def test_the_smallest_difference_of_an_evaluation_is_from_its_own_baseline(tmp_path: Path) -> None:
    """Differences of 1, 2 and 3 points at the probe, whose scores vary by 20 points from seed to seed."""
    text = TEXT + "evaluations: {probe: {of: [SL, two], probe: {kind: linear}}}\n"
    probe = {0: 0.3, 1: 0.5, 2: 0.4}
    scores = {"SL → probe": probe, "two → probe": {seed: value + (1 + seed) / 100 for seed, value in probe.items()}}
    found = {arm.name: arm.smallest_difference for arm in estimated(study_of(tmp_path, text), scores=scores).arms}
    assert found["two → probe"] == pytest.approx(3.26, abs=0.01)
    assert {name for name, value in found.items() if value is not None} == {"two → probe"}


@pytest.mark.parametrize(
    "more",
    [
        "decide: {seeds: 8}\n",
        "designs: {gains: {kind: path, baseline: {}, components: {a: {data.views: 2}, b: {model.dropout: 0.1}}}}\n",
    ],
)
def test_what_continues_costs_at_least_so_much(tmp_path: Path, more: str) -> None:
    study = study_of(tmp_path, TEXT + more)
    scores = {"SL": {0: 0.6, 1: 0.6, 2: 0.6}, "two": {0: 0.61, 1: 0.62, 2: 0.63}}
    found = estimated(study, scores=scores)
    assert found.at_least
    text = estimate_text(found, "hmtl-ablate plan s.yaml", 80)
    assert "image passes: at least " in text
    assert ("Detects" in text) == ("decide" not in more)
    assert "unknown until run" not in text
    assert not estimated(study_of(tmp_path)).at_least


def test_a_precision_that_is_faster_is_named(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    sl = study.variants[0].config(0)
    fast = parse_config({**sl.declared(), "training": {**sl.declared()["training"], "precision": "bf16"}})
    for rate, words in ((820.0, "bf16 is 1.6 times as fast"), (256.0, "stay with fp32"), (530.0, "equally fast")):
        both = {**calibrated(sl).known, **calibrated(fast, train_rate=rate).known}
        (one,) = estimated(study, calibration=Calibration(both)).precisions
        assert words in one.sentence


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_text_fits_and_says_what_is_missing(tmp_path: Path, width: int) -> None:
    study = study_of(tmp_path)
    packs = (PackNeed("ferplus", 48, "missing", None, "give its path: --data ferplus=PATH"),)
    text = estimate_text(estimated(study, packs=packs), "hmtl-ablate plan s.yaml", width)
    table = text.split("image passes:")[0]
    assert max(map(len, table.splitlines())) <= width
    assert "time of first, SL and 2 more: unknown until calibrated: hmtl-ablate plan s.yaml --calibrate" in text
    assert "pack ferplus, 48 px: missing; give its path: --data ferplus=PATH" in text
    known = calibrated(study.variants[0].config(0), memory=500.0, disk=10.0)
    text = estimate_text(estimated(study, calibration=known), "hmtl-ablate plan s.yaml", width)
    assert "unknown until calibrated" not in text
    assert ("Memory" in text.split("image passes:")[0]) == (width >= 90)
    assert "≈: from trials of the same network, size and precision" in text


@pytest.mark.parametrize(("count", "shown"), [(960, "960"), (2048, "2.0 k"), (134_400, "134 k"), (9_960_000, "10 M")])
def test_counts_are_short(count: float, shown: str) -> None:
    assert many(count) == shown


@pytest.mark.parametrize(("mebibytes", "shown"), [(3.44, "3.4 MiB"), (650.2, "650 MiB"), (2048, "2.0 GiB")])
def test_sizes_are_short(mebibytes: float, shown: str) -> None:
    assert size(mebibytes) == shown


def test_a_budget_bounds_the_passes_of_costly_configurations_too(tmp_path: Path) -> None:
    """Fault: 10 runs, which only the cheapest configurations (512 passes) can be, were counted at the costliest's 3,072
    each. The last run starts before the budget is spent. An arm's best is confirmed alone, not next to SL."""
    shared = "base: {pretext: {puzzling: {}}}, space: {pretext.puzzling.feed: {choice: [shared, siamese]}, "
    epochs = "training.epochs: {choice: [1, 3]}}, budget: 5000, racing: {seeds: 6}, confirm: 2"
    study = study_of(tmp_path, TEXT + f"search: {{{shared}{epochs}, arms: {{one: {{}}, other: {{}}}}}}\n")
    found = estimated(study, calibration=calibrated(study.variants[0].config(0))).search
    assert found is not None
    assert (found.trials, found.image_passes) == (2 * 10, (2 * 512, 2 * (5000 + 3072)))
    assert (found.confirmation, found.confirmation_passes) == (2 * 2 * 2, 8 * 3072)
    assert found.seconds is not None
    assert found.confirmation_seconds is not None
    assert found.seconds[1] < 20 * found.confirmation_seconds / 8  # less than 20 of the longest


def test_a_budget_without_a_count_of_images_bounds_no_number_of_trials(tmp_path: Path) -> None:
    space = "base: {pretext: {puzzling: {}}}, space: {training.lr: {uniform: [0.1, 0.2]}}, budget: 5000"
    study = study_of(tmp_path, TEXT + f"search: {{{space}}}\n")
    found = estimated(study, counts=lambda config: None)
    assert found.search is not None
    assert (found.search.trials, found.search.image_passes) == (None, None)
    assert "search: as many trials as fit, less where it prunes" in estimate_text(found, "hmtl-ablate plan s.yaml", 80)


PROBES = """\
search:
  base: {probe: {kind: linear}, model: {weights: "trial:SL"}}
  space: {training.lr: {choice: [0.1, 0.2]}}
"""


@pytest.mark.parametrize("measured", ["SL", "probe"])
def test_a_search_over_probes_takes_no_image_pass(tmp_path: Path, measured: str) -> None:
    """Fault: seconds were divided by the passes, of which a probe has none. A linear probe passes 640 images forward
    once: 0.2 s, and 1 s of start."""
    study = study_of(tmp_path, TEXT + PROBES + "  trials: 3\n  racing: null\n")
    probe = parse_config(dict(study.searches[0].base) | {"seed": 0})
    one = study.variants[0].config(0) if measured == "SL" else probe
    found = estimated(study, calibration=calibrated(one)).search
    assert found is not None
    assert (found.trials, found.image_passes) == (3, (0, 0))
    assert list(found.seconds or ()) == pytest.approx([3 * 1.2, 3 * 1.2])


def test_a_budget_of_passes_bounds_no_number_of_probes(tmp_path: Path) -> None:
    """Fault: 0 seconds."""
    study = study_of(tmp_path, TEXT + PROBES + "  budget: 5000\n  racing: null\n")
    known = calibrated(study.variants[0].config(0))
    found = estimated(study, calibration=known).search
    assert found is not None
    assert (found.trials, found.image_passes, found.seconds) == (None, (0, 0), None)


def test_json_is_plain_and_whole(tmp_path: Path) -> None:
    import json

    study = study_of(tmp_path, TEXT + SEARCH)
    found = json.loads(json.dumps(estimated(study).to_json()))
    assert found["trials"][0] == {"variant": "SL", "seed": 0, "stage": False, "status": "start", "trial_id": ""}
    assert found["search"]["image_passes"] == [2048, 12288]
    assert [arm["name"] for arm in found["arms"]] == ["first", "SL", "two", "tuned", "again"]


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ("trials: 9, racing: {seeds: 6}", (18, 30)),  # two seeds each; at most 3 get 4 more
        ("trials: 3, racing: {seeds: 4}", (6, 10)),  # two race at least: nobody races alone
        ("trials: 9, racing: {seeds: 6}, budget: 10_240", (18, 20)),  # 20 runs of 512 passes
        ("budget: 5_000, racing: {seeds: 6}", (1, 10)),
    ],
)
def test_a_race_is_a_range_of_training_runs(tmp_path: Path, changes: str, runs: tuple[int, int]) -> None:
    space = "base: {pretext: {puzzling: {feed: shared}}}, space: {training.lr: {uniform: [0.1, 0.2]}}"
    text = TEXT.replace("epochs: 2", "epochs: 1") + f"search: {{{space}, {changes.replace('_', '')}}}\n"
    found = estimated(study_of(tmp_path, text))
    assert found.search is not None
    assert found.search.image_passes == (runs[0] * 512, runs[1] * 512)
    assert found.search.trials == runs[1]
