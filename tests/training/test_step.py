"""One training step: in pieces, where memory runs out. What it waits for: test_waits.py."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import OutOfMemory, TrialInterrupted
from hmtl_ablate.training import loop, probe
from hmtl_ablate.training.device import Setup, is_out_of_memory
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.parts import build_parts
from hmtl_ablate.training.step import TrainingStep
from hmtl_ablate.training.workers import Workers

# Out of memory ------------------------------------------------------------------------------------------------------

STILL = {
    "model": {"backbone": "test_convnext", "dropout": 0.0},
    "pretext": {
        "puzzling": {"feed": "siamese", "dropout": 0.0},
        "inpainting": {"feed": "mixed", "share": 0.3, "dropout": 0.0},
    },
}
"""A network without batch norm and dropout."""


def curve(folder: Path) -> list[dict[str, float]]:
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in timed} for row in TrialFolder(folder).history()]


class Card:
    """A GPU whose memory runs out in the passes of more than `most` images, from pass number `since` on."""

    def __init__(self, most: int, since: int = 0) -> None:
        self.most, self.since, self.passes = most, since, 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        losses = TrainingStep._losses

        def limited(own: TrainingStep, model: Any, inputs: Any, *rest: Any) -> Any:
            self.passes += 1
            if self.passes > self.since and max(len(group.images) for group in inputs) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore text")
            return losses(own, model, inputs, *rest)

        monkeypatch.setattr(TrainingStep, "_losses", limited)


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["sum", "geometric", "uncertainty", "dwa", "pcgrad"])
def test_a_step_that_needs_too_much_memory_is_done_in_two_pieces_with_equal_numbers(
    make, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, combine: str
) -> None:
    """Out of a GPU's memory: once more, from the last checkpoint, each batch in two pieces."""
    epochs = 3 if combine == "dwa" else 2  # whose weights come from two epochs
    config = make(**STILL, loss={"combine": combine}, training__epochs=epochs, training__lr=0.001)
    whole = run(config, "whole")
    card = Card(most=32, since=3)  # 2 × 16 images a pass; in the second of two steps an epoch
    card.install(monkeypatch)
    halves = run(config, "halves")
    assert (halves.status, halves.tags["pieces"], whole.tags["pieces"]) == ("finished", "2", "1")
    assert halves.tags["batch_norm"] == whole.tags["batch_norm"] == "none"
    assert halves.image_passes == whole.image_passes
    log = (tmp_path / "halves" / "log.txt").read_text()
    assert "the GPU's memory ran out: CUDA out of memory. Tried to allocate 2.00 GiB.\n" in log
    assert "resumes at epoch 2, step 0\n" in log
    assert "trains each batch in 2 pieces\n" in log
    for one, other in zip(curve(tmp_path / "whole"), curve(tmp_path / "halves"), strict=True):
        assert other == pytest.approx(one, rel=2e-4, abs=2e-4)
    assert curve(tmp_path / "whole")[0] == curve(tmp_path / "halves")[0]  # before the memory ran out


def test_what_pieces_change_is_said_and_recorded(make, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Card(most=16).install(monkeypatch)
    result = run(make(data__size=16, model__dropout=0.2, training__epochs=1), "x")
    assert (result.tags["pieces"], result.tags["batch_norm"]) == ("2", "1/2 of a batch")
    log = (tmp_path / "x" / "log.txt").read_text()
    assert "not those of whole batches: batch norm sees one piece at a time and dropout draws other numbers" in log


def test_a_resumed_trial_trains_in_as_many_pieces(make, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(**STILL, training__epochs=2)
    Card(most=32).install(monkeypatch)
    calls = iter(range(100))
    with pytest.raises(TrialInterrupted):
        run(config, "x", stop=lambda: next(calls) == 2)
    card = Card(most=1000)
    card.install(monkeypatch)
    assert run(config, "x").tags["pieces"] == "2"


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_that_does_not_suffice_for_halves_is_one_error(
    make, run, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """With several workers at once: one of them can't start again by itself."""
    Card(most=8).install(monkeypatch)
    monkeypatch.setattr(TrainingStep, "__init__", lambda self, parts: _without_ddp(self, parts))
    monkeypatch.setattr(Workers, "agree", lambda self, device, numbers: True)
    monkeypatch.setattr(Workers, "share", lambda self, value: value)
    passes: list[int] = []

    def stop() -> bool:
        passes.append(1)
        return False

    with pytest.raises(OutOfMemory, match=r"Tried to allocate 2\.00 GiB.*training\.batch_size") as caught:
        run(make(data__size=16, training__epochs=1), "x", world_size=workers, stop=stop)
    assert ("2 pieces" in str(caught.value)) == (workers == 1)
    assert passes == []


def _without_ddp(self: TrainingStep, parts: Any) -> None:
    self.parts, self.model, self.pieces = parts, parts.model, 1


def test_a_probe_that_needs_too_much_memory_computes_features_of_fewer_images(
    make, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, sizes = Setup.images, []

    def limited(self: Setup, pixels: torch.Tensor, *norm: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return images(self, pixels, *norm)

    monkeypatch.setattr(Setup, "images", limited)
    monkeypatch.setattr(probe, "BATCH", 64)
    config = make(data__size=16, probe={"kind": "knn"})
    most = 32
    assert run(config, "x").status == "finished"
    assert sizes == [64, 32, 32, 32]
    most = 16
    with pytest.raises(OutOfMemory):
        run(config, "y")


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_out_of_memory(MemoryError())  # the host's


def test_no_other_error_is_tried_again(make, run, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def broken(*given: Any) -> None:
        tried.append(1)
        raise RuntimeError("boom")

    monkeypatch.setattr(loop, "build_parts", broken)
    with pytest.raises(RuntimeError, match="boom"):
        run(make(training__epochs=1), "x")
    assert tried == [1]


def batch_norm_of(config: TrialConfig, pack: Pack, folder: Path, count: int, pieces: int) -> str:
    return loop.batch_norm(build_parts(config, pack, TrialFolder(folder), Workers()).model, Workers(0, count), pieces)


def test_batch_norms_share_of_a_batch_is_recorded(make, run, pack: Pack, tmp_path: Path) -> None:
    """Fault B9: `workers` changes batch norm, not the id."""
    found = [batch_norm_of(make(), pack, tmp_path, *of) for of in ((1, 1), (2, 1), (2, 2))]
    assert found == ["batch", "1/2 of a batch", "1/4 of a batch"]
    assert batch_norm_of(make(**STILL), pack, tmp_path, 2, 2) == "none"
    run(make(data__size=16, training__epochs=1), "x")
    result = TrialFolder(tmp_path / "x").result()
    assert result is not None
    assert result.tags["batch_norm"] == "batch"
