"""Options by dotted key: which there are, and what is wrong with a key or a value."""

from __future__ import annotations

from typing import Any

import pytest

from hmtl_ablate.config import PRETEXT_OPTIONS, PretextOptions
from hmtl_ablate.errors import Fault
from hmtl_ablate.study.options import SECTIONS, config_faults, key_fault, option_fields, own_fault, value_faults


def test_sections_are_the_keys_of_a_config_without_its_seed() -> None:
    assert SECTIONS == ["task", "data", "model", "pretext", "loss", "training", "probe"]


def test_options_have_dotted_keys_and_defaults() -> None:
    fields = option_fields()
    assert {key: fields[key].default for key in ("task", "data.size", "training.epochs", "pretext.puzzling.grid")} == {
        "task": "emotion",
        "data.size": 48,
        "training.epochs": 20,
        "pretext.puzzling.grid": 2,
    }
    assert not {"seed", "data", "pretext", "pretext.puzzling"} & fields.keys()


def test_a_registered_pretext_task_has_options(monkeypatch: pytest.MonkeyPatch) -> None:
    class ColourOptions(PretextOptions):
        bins: int = 8
        """Bins of the histogram."""

    assert key_fault("pretext.colour.bins") is not None
    monkeypatch.setitem(PRETEXT_OPTIONS, "colour", ColourOptions)
    assert key_fault("pretext.colour.bins") is None
    assert option_fields()["pretext.colour.bins"].default == 8


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("task", None),
        ("pretext.puzzling.grid", None),
        ("data.sise", ("there is no option 'sise'", "did you mean 'size'?")),
        ("data", ("'data' is a group of options", "name one of them, e.g. data.augment")),
        ("pretext", ("'pretext' is a group of options", "name one of them, e.g. pretext.inpainting.answers")),
        ("pretext.puzzling", ("'pretext.puzzling' is a group of options", "name one of them, e.g. pretext.puzzling.")),
        ("tusk", ("there is no option 'tusk'", "did you mean 'task'?")),
        (
            "pretext.puzling.grid",
            ("there is no option 'pretext.puzling.grid'", "did you mean 'pretext.puzzling.grid'?"),
        ),
        ("", ("there is no option ''", "")),
    ],
)
def test_key_fault(key: str, fault: tuple[str, str] | None) -> None:
    found = key_fault(key)
    if fault is None:
        assert found is None
    else:
        assert found is not None
        assert found[0] == fault[0]
        assert found[1].startswith(fault[1])


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("data.size", 48, None),
        ("data.size", 4, "input should be greater than or equal to 16, not 4"),
        ("data.size", "48", "should be a number, not the text '48'"),
        ("training.epochs", True, "should be a number, not true"),
        ("training.clip", None, None),
        ("training.warmup_epochs", 500, None),  # more than training.epochs, but that is another option's concern
        ("model.weights", "trail:x", "'trail:x' names no weights"),
        ("pretext.puzzling.feed", "mixd", "'mixd' is not one of 'shared', 'siamese' or 'mixed'"),
    ],
)
def test_value_faults_are_of_the_value_alone(key: str, value: Any, what: str | None) -> None:
    assert [fault.what for fault in value_faults(key, value)] == ([] if what is None else [what])


def test_own_fault() -> None:
    assert own_fault(Fault(("data", "size"), "", 4))
    assert own_fault(Fault(("data", "sise"), "", 48)), "an unknown option"
    assert not own_fault(Fault(("training", "warmup_epochs"), "", 500)), "other options decide"


def test_config_faults_come_all_at_once_with_their_paths() -> None:
    assert config_faults({"data": {"size": 64}}) == []
    found = config_faults({"seed": 3, "data": {"size": 4}, "pretext": {"puzling": {}}})
    assert [(fault.path, fault.hint) for fault in found] == [
        (("seed",), "write seeds: [0, 1, 2] above"),
        (("pretext", "puzling"), "did you mean 'puzzling'? (--import MODULE adds your own)"),
        (("data", "size"), ""),
    ]


def test_a_number_in_quotes_is_a_fault_however_deep() -> None:
    raw = {"pretext": {"puzzling": {"feed": "siamese", "changed_views": [[1, 1], ["0.5", 1]]}}}
    (fault,) = config_faults(raw)
    assert (fault.path, fault.hint) == (
        ("pretext", "puzzling", "changed_views", 1, 0),
        "write it without quotes",
    )
