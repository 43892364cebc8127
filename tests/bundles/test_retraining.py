"""The draw and the comparison of `--retrain`; whole trainings are in test_commands.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmtl_ablate.bundles.reading import opened
from hmtl_ablate.bundles.retraining import compared, drawn
from hmtl_ablate.bundles.scrubbing import scrubbed
from hmtl_ablate.training.folder import TrialFolder


def test_the_draw_follows_its_seed(bundle: Path) -> None:
    with opened(bundle) as found:
        ids = [drawn(found, seed).content.trial_id for seed in range(20)]
        assert ids == [drawn(found, seed).content.trial_id for seed in range(20)]
        assert set(ids) == set(found.contents)


def test_bit_for_bit_on_the_same_kind_of_machine(bundle: Path, runs: Path) -> None:
    with opened(bundle) as found:
        trial = drawn(found, 0)
        own = runs / "trials" / trial.content.trial_id
        same = compared(trial, own, 0)
        assert (same.agrees, same.exact, same.other) == (True, True, ())
        folder = TrialFolder(own)
        arrays = folder.predictions()
        arrays["test_probability"][0, 0] += 1e-7
        folder.write_predictions(arrays)
        (one,) = compared(trial, own, 0).differences
        assert str(one).endswith("predictions.npz: test_probability: trained again, it is not the same bit for bit")


@pytest.mark.parametrize(("change", "agrees"), [(0.029, True), (0.031, False)])
def test_within_three_points_elsewhere(bundle: Path, runs: Path, change: float, agrees: bool) -> None:
    with opened(bundle) as found:
        trial = drawn(found, 0)
        folder = TrialFolder(runs / "trials" / trial.content.trial_id)
        result = folder.result()
        assert result is not None
        metrics = {**result.metrics, "test/accuracy": result.metrics["test/accuracy"] + change}
        folder.write_result(
            result.model_copy(update={"metrics": metrics, "tags": {**result.tags, "device": "NVIDIA H100"}})
        )
        again = compared(trial, folder.path, 0)
        assert (again.agrees, again.exact) == (agrees, False)
        assert again.other == ("device cpu, here NVIDIA H100",)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('+DATA = "/home/jane/faces"', '+DATA = "<path>"'),
        ("data: {ferplus: /mnt/x/FERPlus}", "data: {ferplus: <path>}"),
        ("C:\\Users\\jane\\faces", "<path>"),
        ("mail jane@lab.example.org", "mail <user>@<host>"),
        ("--- /dev/null\n+++ b/hmtl_ablate/new.py", "--- /dev/null\n+++ b/hmtl_ablate/new.py"),
        (
            "val/accuracy, 1/4 of a batch, https://example.org/a/b",
            "val/accuracy, 1/4 of a batch, https://example.org/a/b",
        ),
    ],
)
def test_paths_and_names_are_left_out(text: str, left: str) -> None:
    assert scrubbed(text) == left
