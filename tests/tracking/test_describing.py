"""A trial in words."""

from __future__ import annotations

from dataclasses import replace

from hmtl_ablate.config import parse_config
from hmtl_ablate.tracking.describing import changed_options, trial_text
from hmtl_ablate.tracking.records import TrialRecord


def record(raw: dict[str, object]) -> TrialRecord:
    config = parse_config(raw).model_dump(mode="json")
    return TrialRecord(
        parent="p", study="s", profile="quick", trial_id="abc", variant="HMTL", variant_key="k", seed=3, config=config
    )


def test_only_what_differs_from_the_defaults() -> None:
    assert changed_options(record({}).config) == {}
    on = {"pretext": {"puzzling": {"feed": "siamese"}, "rotation": {"weight": 0.25}}, "data": {"fraction": 0.2}}
    assert changed_options(record(on).config) == {
        "data.fraction": 0.2,
        "pretext.puzzling": "on",
        "pretext.rotation.weight": 0.25,
    }
    assert changed_options({"training": {"later": [1]}}) == {"training.later": [1]}  # of a later version


def test_a_trial_in_words() -> None:
    one = replace(
        record({"seed": 3, "data": {"fraction": 0.2, "leave_out": ["contempt"]}}), data="ferplus", task="emotion"
    )
    head = "Variant **HMTL**, seed 3, task emotion of study s (quick), on ferplus."
    changes = "Differs from the defaults in\n\n- `data.fraction`: 0.2\n- `data.leave_out`: contempt"
    assert trial_text(one) == f"{head}\n\nIt has no result yet.\n\n{changes}"
    metrics = {"test/accuracy": 0.5, "test/recall/fear": 0.1, "best/val/accuracy": 0.625, "seconds": 12.3}
    ended = trial_text(replace(one, status="finished", metrics=metrics))
    assert "**Finished**: test accuracy 50.0 %, validation accuracy 62.5 %, 12 seconds." in ended
    failed = trial_text(replace(one, status="failed", ending="diverged", reason="the loss is NaN"))
    assert "**Failed** (diverged): the loss is NaN." in failed
    searched = replace(record({}), variant="search", variant_key="", arm="HMTL", draw="sampler", status="pruned")
    assert trial_text(searched) == (
        "Configuration of the search of **HMTL**, drawn by sampler, seed 3 of study s (quick).\n\n"
        "**Stopped early**.\n\nAll options have their defaults."
    )
