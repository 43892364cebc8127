"""What a machine is known to do: rates from a trial's epochs, means over trials, and the file in the store."""

import json
from pathlib import Path

import pytest

from hmtl_ablate.config import parse_config
from hmtl_ablate.planning.calibration import (
    FILE,
    Calibration,
    Key,
    Measurement,
    rates_of,
    read_calibration,
    record,
    write_calibration,
)
from hmtl_ablate.planning.cost import Work
from hmtl_ablate.planning.pace import elapsed, expected, key_of, work_seconds
from hmtl_ablate.study import Resources

LOAD = {"model.backbone": "test_resnet", "data.size": 48, "training.batch_size": 64}
KEY = Key(device="A, 2 cores", workload=LOAD)
WORK = Work(passes=1200, steps=12, epochs=3, measured=30, validated=300, last=90)


def test_rates_are_those_after_the_first_epoch() -> None:
    """Epochs of 400 passes at 100 a second: 4 s; 1 s more, of which the 10 images that are measured take 0.1 s and the
    100 of val 0.9 s. The first epoch, in which libraries load, took 20 s."""
    history = [
        {"epoch": 1, "image_passes": 400, "seconds": 20.0, "images_per_second": 25.0},
        {"epoch": 2, "image_passes": 800, "seconds": 25.0, "images_per_second": 100.0},
        {"epoch": 3, "image_passes": 1200, "seconds": 30.0, "images_per_second": 100.0},
    ]
    train, evaluation = rates_of(history, WORK)
    assert train == pytest.approx(100.0)
    assert evaluation == pytest.approx(100 / 0.9)


def test_one_epoch_is_all_there_is() -> None:
    work = Work(passes=400, steps=4, epochs=1, measured=10, validated=100, last=0)
    row = {"epoch": 1, "image_passes": 5400, "seconds": 5.0, "images_per_second": 100.0}  # started from other weights
    train, evaluation = rates_of([row], work)
    assert (train, evaluation) == pytest.approx((100.0, 100 / 0.9))


@pytest.mark.parametrize("history", [[], [{"epoch": 1.0}], [{"epoch": 1.0}, {"epoch": 2.0, "seconds": 2.0}]])
def test_a_history_without_speeds_has_no_rate(history: list[dict[str, float]]) -> None:
    assert rates_of(history, WORK) == (None, None)


def test_seconds_of_work() -> None:
    """(1200 + 30) / 100 + (300 + 90) / 130; without a rate of evaluation three times that of training: 390 / 300."""
    known = Measurement(key=KEY, train_rate=100.0, evaluation_rate=130.0)
    assert work_seconds(known, WORK) == pytest.approx(12.3 + 3.0)
    assert work_seconds(Measurement(key=KEY, train_rate=100.0), WORK) == pytest.approx(12.3 + 1.3)
    assert work_seconds(Measurement(key=KEY, memory=5.0), WORK) is None
    probe = Work(0, 0, 20, 0, 0, 260)
    assert work_seconds(Measurement(key=KEY, evaluation_rate=130.0), probe) == pytest.approx(2.0)


def test_trials_end_when_a_place_is_free() -> None:
    """4, 2, 2 and 3 s on two places: the second has 2 + 2, then 3 s follow at 4 s."""
    assert elapsed([4, 2, 2, 3], 2) == 7
    assert elapsed([4, 2, 2, 3], 1) == 11
    assert elapsed([], 3) == 0


def test_a_mean_forgets_slowly() -> None:
    known = Measurement(key=KEY, train_rate=100.0, memory=500, disk=3)
    once = known.joined(Measurement(key=KEY, train_rate=200.0, start=2.0, memory=400, disk=4))
    assert (once.train_rate, once.start, once.memory, once.disk, once.count) == (150.0, 2.0, 500, 4, 2)
    many = known.model_copy(update={"count": 100}).joined(Measurement(key=KEY, train_rate=200.0))
    assert many.train_rate == pytest.approx(120.0)  # a fifth


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = Measurement(key=KEY, train_rate=100.0, evaluation_rate=300.0, start=1.5, memory=900, disk=7.5)
    record(tmp_path, [made], {"local on A, 2 cores": 6.0})
    found = record(tmp_path, [made.model_copy(update={"train_rate": 200.0})])
    assert read_calibration(tmp_path) == found
    assert found.known[KEY.name].train_rate == 150.0
    assert found.launch == {"local on A, 2 cores": 6.0}
    assert list(tmp_path.glob(".calibration.json.????????")) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 2}', b"\xff", b'{"version": 1, "measurements": 7}']
)
def test_a_damaged_file_counts_as_empty_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read_calibration(tmp_path) == Calibration()
    made = Measurement(key=KEY, train_rate=100.0)
    record(tmp_path, [made])
    assert read_calibration(tmp_path).known == {KEY.name: made}


def test_an_entry_that_cant_be_read_is_left_out(tmp_path: Path) -> None:
    write_calibration(tmp_path, Calibration({KEY.name: Measurement(key=KEY, train_rate=100.0)}, {"x": 2.0}))
    content = json.loads((tmp_path / FILE).read_text())
    content["measurements"] += [{"key": {"device": 3}}, "no", {**content["measurements"][0], "train_rate": -1}]
    content["launch"] |= {"y": "soon", "z": -4}
    (tmp_path / FILE).write_text(json.dumps(content))
    found = read_calibration(tmp_path)
    assert [one.train_rate for one in found.known.values()] == [100.0]
    assert found.launch == {"x": 2.0}


def test_a_similar_trial_stands_in_and_another_machine_does_not() -> None:
    """The medians of trials of the same network, size, precision and device, of as many at once where there are any."""
    siamese = {**LOAD, "pretext.puzzling.feed": "siamese"}
    known = [
        Measurement(key=KEY, train_rate=100.0),
        Measurement(key=KEY.model_copy(update={"workload": siamese}), train_rate=140.0),
        Measurement(key=KEY.model_copy(update={"at_once": 2}), train_rate=50.0),
    ]
    calibration = Calibration({one.key.name: one for one in known})
    assert calibration.find(KEY) == (known[0], True)

    def of(**changes: object) -> tuple[float | None, bool] | None:
        found = calibration.find(KEY.model_copy(update=changes))
        return None if found is None else (found[0].train_rate, found[1])

    assert of(workload={**LOAD, "data.views": 2}) == (120.0, False)
    assert of(workload={**LOAD, "data.views": 2}, at_once=2) == (50.0, False)
    assert of(workload={**LOAD, "data.views": 2}, at_once=3) == (100.0, False)
    assert of(workload={**LOAD, "probe.kind": "linear"}) == (100.0, False)
    for other in ({"device": "B, 8 cores"}, {"precision": "bf16"}, {"workload": {**LOAD, "data.size": 64}}):
        assert of(**other) is None


def test_a_key_names_the_precision_that_auto_means() -> None:
    config = parse_config({})
    cpu, gpu = Resources(cpus=2), Resources(gpus=1)
    assert (key_of(config, cpu, "A", 1).precision, key_of(config, cpu, "A", 1).threads) == ("fp32", 2)
    assert key_of(config, gpu, "H100", 1).precision == "bf16"
    bf16 = parse_config({"training": {"precision": "bf16"}})
    assert key_of(bf16, cpu, "A", 1).precision == "bf16"
    assert key_of(bf16, cpu, "A", 1).workload == key_of(config, cpu, "A", 1).workload


def test_nothing_is_expected_without_a_calibration() -> None:
    assert expected(Calibration(), KEY, WORK) is None
    known = Measurement(key=KEY, train_rate=100.0, evaluation_rate=130.0, start=2.0, memory=900)
    found = expected(Calibration({KEY.name: known}), KEY, WORK)
    assert found is not None
    assert found.seconds == pytest.approx(17.3)
    assert (found.measured, found.memory) == (True, 900)
