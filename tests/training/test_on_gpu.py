"""Training on a GPU: `pytest -m gpu`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Generator

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.augment_batch import BatchView
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.training import batches
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.loop import train
from hmtl_ablate.training.parts import build_parts
from hmtl_ablate.training.step import TrainingStep
from hmtl_ablate.training.workers import Workers

pytestmark = pytest.mark.gpu

HMTL = {"puzzling": {"feed": "siamese", "supervised_weight": 0.5}, "inpainting": {"feed": "mixed", "share": 0.25}}


def test_a_trial_learns_and_gives_its_memory_back(make, run, pack: Pack, tmp_path: Path) -> None:
    config, held = make(pretext=HMTL, training__epochs=4), []
    for name in ("x", "y"):
        result = run(config, name, device="cuda")
        batches.RESIDENT_PACK.release()
        torch.cuda.empty_cache()
        held.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    rows = TrialFolder(tmp_path / "x").history()
    assert result.status == "finished"
    assert result.tags["device"] == torch.cuda.get_device_name()
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert held[1] <= held[0]  # the first trial leaves cuBLAS's workspaces, which the second one uses
    assert held[0][1] < 256 * 2**20


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_deterministic_trial_gives_equal_numbers_twice(make, run, tmp_path: Path, precision: str) -> None:
    config = make(pretext=HMTL, training__epochs=2, training__deterministic=True, training__precision=precision)
    run(config, "a", device="cuda")
    run(config, "b", device="cuda")
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_cpu_is_used_when_asked(make, run) -> None:
    assert run(make(training__epochs=1), "x", device="cpu").tags["device"] == "cpu"


# Speed: nothing waits ----------------------------------------------------------------------------------------------

EVERY_TASK: dict[str, Any] = {
    "puzzling": {"feed": "siamese", "supervised_weight": 0.5},
    "inpainting": {"feed": "mixed", "share": 0.25, "perceptual": "vgg16", "perceptual_weights": None},
    "rotation": {"feed": "siamese", "supervised_weight": 0.5},
}


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Inside, a call that waits for the GPU raises a RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("combine", ["sum", "pcgrad"])
def test_a_step_waits_for_nothing(make, pack: Pack, tmp_path: Path, combine: str) -> None:
    config = make(pretext=EVERY_TASK, loss__combine=combine, data__augment="strong")
    built = build_parts(config, pack, TrialFolder(tmp_path), Workers(), "cuda")
    step = TrainingStep(built)
    step(built.batches[0], [])  # copies what stays on the GPU, and builds the optimiser's state
    with waiting_is_an_error():
        batch = built.batches[1]
        terms = step(batch, [])
    assert torch.isfinite(terms["loss"]).all()
    with pytest.raises(RuntimeError), waiting_is_an_error():
        terms["loss"].item()


# Numbers: as on the CPU ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["weak", "strong"])
def test_views_are_those_of_the_cpu(level: str, pack: Pack) -> None:
    """But for the noise, which each device draws by itself: it is left out."""
    view = BatchView(level, 32, 32, 3)  # type: ignore[arg-type]
    images = torch.from_numpy(pack.images[:64].copy())
    draws = view.draw(64, Generator().manual_seed(3))
    draws.noise.zero_()
    there, here = view(images.cuda(), draws).cpu(), view(images, draws)
    error = (there - here).abs()
    assert error.mean() < 1e-4
    assert (error > 0.02).float().mean() < 1e-3  # a pixel at the edge of a nearest-neighbour choice


def test_a_curve_in_fp32_is_that_of_the_cpu(make, run, tmp_path: Path) -> None:
    """Views of whole images and no dropout: the two devices draw nothing of their own."""
    still = {
        "model": {"dropout": 0.0},
        "pretext": {"puzzling": {"feed": "siamese", "dropout": 0.0, "supervised_weight": 0.5}},
    }
    config = make(**still, data__augment="none", training__precision="fp32", training__epochs=2, training__lr=0.001)
    for device in ("cpu", "cuda"):
        run(config, device, device=device)
    here, there = (TrialFolder(tmp_path / name).history() for name in ("cpu", "cuda"))
    for ours, theirs in zip(here, there, strict=True):
        for key in ("train/loss", "val/loss"):
            assert theirs[key] == pytest.approx(ours[key], rel=0.02), key


# Memory -------------------------------------------------------------------------------------------------------------


def test_a_gpu_whose_memory_runs_out_trains_in_halves(make, tmp_path: Path) -> None:
    """A real shortage: the process may take the memory of a step in halves, and not that of a whole batch."""
    config: TrialConfig = make(
        data={"images": 400, "size": 96},
        model={"backbone": "resnet18"},
        training__batch_size=256,
        training__epochs=1,
        training__precision="fp32",
    )
    pack = open_pack(config.data, None, tmp_path)
    peaks = []
    for pieces in (2, 1):
        batches.RESIDENT_PACK.release()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        train(config, pack, tmp_path / f"{pieces}", evaluate_test=False, device="cuda", pieces=pieces)
        peaks.append(torch.cuda.max_memory_allocated())
    batches.RESIDENT_PACK.release()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    assert peaks[0] < 0.8 * peaks[1]
    torch.cuda.set_per_process_memory_fraction((0.7 * peaks[0] + 0.3 * peaks[1]) / total)
    try:
        result = train(config, pack, tmp_path / "short", evaluate_test=False, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (result.status, result.tags["pieces"]) == ("finished", "2")
    assert "the GPU's memory ran out: " in (tmp_path / "short" / "log.txt").read_text()
