"""Training on a GPU: `pytest -m gpu`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.training import batches
from hmtl_ablate.training.folder import TrialFolder

pytestmark = pytest.mark.gpu

HMTL = {"puzzling": {"feed": "siamese", "supervised_weight": 0.5}, "inpainting": {"feed": "mixed", "share": 0.25}}


def test_a_trial_learns_and_gives_its_memory_back(make, run, pack: Pack, tmp_path: Path) -> None:
    result = run(make(pretext=HMTL, training__epochs=4), "x", device="cuda")
    rows = TrialFolder(tmp_path / "x").history()
    assert result.status == "finished"
    assert result.tags["device"] == torch.cuda.get_device_name()
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    batches.RESIDENT_PACK.release()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < 64 * 2**20


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_deterministic_trial_gives_equal_numbers_twice(make, run, tmp_path: Path, precision: str) -> None:
    config = make(pretext=HMTL, training__epochs=2, training__deterministic=True, training__precision=precision)
    run(config, "a", device="cuda")
    run(config, "b", device="cuda")
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_cpu_is_used_when_asked(make, run) -> None:
    assert run(make(training__epochs=1), "x", device="cpu").tags["device"] == "cpu"
