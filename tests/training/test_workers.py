"""Several workers of one trial: what each sees alone decides nothing."""

import json
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn as spawn_processes

from hmtl_ablate import register_pretext_task
from hmtl_ablate.config import RotationOptions, TrialConfig, parse_config
from hmtl_ablate.data.pack import Pack, load_pack
from hmtl_ablate.errors import CheckpointError
from hmtl_ablate.pretext import PRETEXT_TASKS
from hmtl_ablate.pretext.rotation import Rotation
from hmtl_ablate.training import loop
from hmtl_ablate.training.batches import TrainingBatches
from hmtl_ablate.training.checkpoint import save_state
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.measure import predict
from hmtl_ablate.training.parts import build_parts
from hmtl_ablate.training.step import TrainingStep, only_statistics
from hmtl_ablate.training.workers import Workers

CPU = torch.device("cpu")
LIMIT = 300.0
"""Seconds after which two workers count as deadlocked: on a busy machine they need a minute to start."""


def _join(rank: int, port: int) -> None:
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=LIMIT)
    )


def spawn(work: Callable[..., None], *given: Any) -> None:
    """Run work(rank, port, *given) in two processes that are joined by gloo; they are killed after LIMIT seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = spawn_processes(work, args=(port, *given), nprocs=2, join=False)
    end = time.monotonic() + LIMIT
    while not context.join(timeout=1.0):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            pytest.fail(f"the workers still wait for each other after {LIMIT:g} s")


def _train(rank: int, port: int, raw: dict[str, Any], pack: str, folder: str, pieces: int = 1) -> None:
    _join(rank, port)
    place: dict[str, Any] = {"rank": rank, "world_size": 2, "pieces": pieces}
    loop.train(parse_config(raw), load_pack(Path(pack)), Path(folder), evaluate_test=True, **place)
    dist.destroy_process_group()


def _train_skewed(rank: int, port: int, raw: dict[str, Any], pack: str, folder: str) -> None:
    """Worker 1's clock runs so fast that a checkpoint is due at each of its readings; worker 0 notes what it writes."""
    hours = iter(range(10**6))
    if rank == 1:
        loop.time = SimpleNamespace(monotonic=lambda: 3600.0 * next(hours))  # type: ignore[assignment, attr-defined]
    save, written = save_state, []

    def noted(path: Path, state: dict[str, Any]) -> None:
        written.append((state["progress"]["epoch"], state["progress"]["step"]))
        save(path, state)

    loop.save_state = noted  # type: ignore[attr-defined]
    _train(rank, port, raw, pack, folder)
    if rank == 0:
        (Path(folder) / "written.json").write_text(json.dumps(written))


@pytest.mark.slow
def test_workers_whose_clocks_differ_write_the_same_checkpoints(make, pack: Pack, tmp_path: Path) -> None:
    """Fault B1: each worker tested its own clock, then all-reduced: a deadlock in every epoch of over 120 s."""
    config = make(data__size=16, training__batch_size=4, training__epochs=2)
    raw = config.model_dump(mode="json", exclude_defaults=True)
    spawn(_train_skewed, raw, str(pack.folder), str(tmp_path / "skewed"))
    written = json.loads((tmp_path / "skewed" / "written.json").read_text())
    assert written == [[1, loop.VOTE_EVERY], [2, 0], [2, loop.VOTE_EVERY], [3, 0]]


def test_one_worker_votes_after_every_step_and_several_after_some(make, run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return False

    run(make(data__size=16, training__batch_size=4, training__epochs=1), "x", stop=stop)
    steps = len(asked)
    assert steps > loop.VOTE_EVERY
    votes: list[tuple[bool, ...]] = []

    def vote(self: Workers, device: torch.device, *flags: bool) -> tuple[bool, ...]:
        votes.append(flags)
        return flags

    trial = SimpleNamespace(
        workers=Workers(0, 2),
        parts=SimpleNamespace(batches=SimpleNamespace(steps=25), setup=SimpleNamespace(device=CPU)),
    )
    monkeypatch.setattr(Workers, "vote", vote)
    found = []
    for step in range(1, 26):
        trial.progress = SimpleNamespace(step=step)
        found.append(loop._Trial._vote(trial, lambda: True, time.monotonic()))  # type: ignore[arg-type]
    assert [step for step, answer in enumerate(found, 1) if answer == (True, False)] == [10, 20, 25]
    assert votes == [(True, False)] * 3


def _ballot(rank: int, port: int, folder: str) -> None:
    _join(rank, port)
    workers = Workers(rank, 2)
    found = {
        "vote": workers.vote(CPU, rank == 1, False, True),
        "same": workers.agree(CPU, (3, 7)),
        "differ": workers.agree(CPU, (3, 7 + rank)),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_vote_has_one_outcome(tmp_path: Path) -> None:
    """Fault B1."""
    spawn(_ballot, str(tmp_path))
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1] == {"vote": [True, False, True], "same": True, "differ": False}


def test_workers_that_see_different_checkpoints_are_refused(make, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault B1, of the same kind: a store on each node's own disk."""
    monkeypatch.setattr(Workers, "agree", lambda self, device, numbers: False)
    with pytest.raises(CheckpointError, match="one folder that all nodes share"):
        run(make(training__epochs=1), "x")


# A share without changed images ----------------------------------------------------------------------------------


class Watchful(Rotation):
    """A task of another's that can't do without images, as many layers can't."""

    def change(self, images: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        assert len(images)
        return super().change(images, draw)

    def forward(self, maps: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        assert len(maps)
        return super().forward(maps, pooled)

    def loss(self, output: torch.Tensor, images: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        assert len(output)
        return super().loss(output, images, draw)


def losses_of_share(config: TrialConfig, pack: Pack, folder: Path, rank: int) -> tuple[dict[str, torch.Tensor], Any]:
    """Each loss of worker `rank` of two in the first step, and the model."""
    parts = build_parts(config, pack, TrialFolder(folder), Workers(rank, 2))
    batch = TrainingBatches(config, pack, parts.splits.train, parts.supervised, rank, 2)[0]
    step = TrainingStep.__new__(TrainingStep)  # without DistributedDataParallel, which needs the other worker
    step.parts, step.model, step.pieces = parts, parts.model, 1
    losses, _ = step._forward(step.model, batch, 0, 0)
    return losses, parts.model


@pytest.mark.parametrize("name", [*PRETEXT_TASKS, "watchful"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_every_task_works_without_images(
    make, pack: Pack, tmp_path: Path, registries: None, name: str, backbone: str
) -> None:
    """Fault B3: in-painting crashed on a worker whose share of a batch had no changed image."""
    register_pretext_task("watchful", RotationOptions, Watchful)
    options = {"perceptual": "test_resnet", "perceptual_weights": None} if name == "inpainting" else {}
    mixed = {"feed": "mixed", "share": 0.1, **options}  # one image of the batch: worker 0's
    config = make(pretext={name: mixed}, model__backbone=backbone, training__batch_size=8)
    for rank, changed in ((0, 1), (1, 0)):
        losses, model = losses_of_share(config, pack, tmp_path, rank)
        torch.stack(list(losses.values())).sum().backward()
        assert (float(losses[name].detach()) > 0) == bool(changed)
        gradients = [parameter.grad for parameter in model.pretext.parameters()]
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.abs().sum() > 0) for gradient in gradients) == bool(changed)


@pytest.mark.slow
@pytest.mark.parametrize(("combine", "pieces"), [("sum", 1), ("geometric", 2)])
def test_a_worker_without_changed_images_trains_as_one_worker_does(
    make, run, pack: Pack, tmp_path: Path, combine: str, pieces: int
) -> None:
    """Fault B3: the same curve as one worker's, within float tolerance, for a net without batch norm and dropout; also
    when each of them trains its share in pieces."""
    still = {"feed": "mixed", "share": 0.1, "dropout": 0.0}
    config = make(
        model={"backbone": "test_convnext", "dropout": 0.0},
        loss={"combine": combine},
        pretext=dict.fromkeys(PRETEXT_TASKS, still),
        training__batch_size=4,
        training__epochs=1,
        training__lr=0.001,
    )
    run(config, "one")
    raw = config.model_dump(mode="json", exclude_defaults=True)
    spawn(_train, raw, str(pack.folder), str(tmp_path / "two"), pieces)
    (one,), (two,) = (TrialFolder(tmp_path / name).history() for name in ("one", "two"))
    for name in ("train/loss", "train/supervised", *(f"train/{task}" for task in PRETEXT_TASKS), "val/loss"):
        assert two[name] == pytest.approx(one[name], rel=2e-3), name


# Buffers and options of DistributedDataParallel --------------------------------------------------------------------


def _evaluate(rank: int, port: int, raw: dict[str, Any], pack: str, folder: str) -> None:
    """Two steps, without and with a broadcast of the buffers before each, then an evaluation of val; saves the buffers
    before and after it, and its outputs."""
    _join(rank, port)
    for broadcast in (False, True):
        parts = build_parts(parse_config(raw), load_pack(Path(pack)), TrialFolder(Path(folder)), Workers(rank, 2))
        parts.model.train()
        step = TrainingStep(parts)
        assert not step.model.broadcast_buffers
        step.model.broadcast_buffers = broadcast
        for number in range(2):
            step(parts.batches[number], [])
        before = {name: buffer.clone() for name, buffer in parts.model.named_buffers()}
        outputs = predict(parts, parts.val)
        found = {"before": before, "after": dict(parts.model.named_buffers()), "outputs": outputs}
        torch.save(found, Path(folder) / f"{rank}-{broadcast}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_workers_evaluate_with_the_buffers_of_worker_0(make, pack: Pack, tmp_path: Path) -> None:
    """Between evaluations each worker has the running statistics of its own share. Those of worker 0, which are
    evaluated and saved, are the same bits as with a broadcast before each step."""
    raw = make(pretext={"puzzling": {}}).model_dump(mode="json", exclude_defaults=True)
    spawn(_evaluate, raw, str(pack.folder), str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}-False.pt") for rank in (0, 1))
    statistics = [name for name in first["before"] if "running" in name]
    assert statistics
    assert not any(torch.equal(first["before"][name], second["before"][name]) for name in statistics)
    for other in (first, second, torch.load(tmp_path / "0-True.pt")):
        assert torch.equal(other["outputs"], first["outputs"])
        for name, buffer in first["before"].items():
            assert torch.equal(other["after"][name], buffer), name


@pytest.mark.parametrize("feed", ["shared", "mixed", "siamese"])
@pytest.mark.parametrize("name", PRETEXT_TASKS)
def test_no_built_in_task_has_buffers_that_a_step_reads(make, pack: Pack, tmp_path: Path, name: str, feed: str) -> None:
    parts = build_parts(make(pretext={name: {"feed": feed}}), pack, TrialFolder(tmp_path), Workers())
    assert only_statistics(parts.model)


class Remembering(Rotation):
    """A task of another's with a buffer that its steps read and write."""

    centre: torch.Tensor

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.register_buffer("centre", torch.zeros(1))

    def forward(self, maps: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        output = super().forward(maps, pooled) + self.centre
        self.centre = 0.9 * self.centre + 0.1 * output.detach().mean()
        return output


def test_a_buffer_that_a_step_may_read_is_found(make, pack: Pack, tmp_path: Path, registries: None) -> None:
    register_pretext_task("remembering", RotationOptions, Remembering)
    parts = build_parts(make(pretext={"remembering": {}}), pack, TrialFolder(tmp_path), Workers())
    assert not only_statistics(parts.model)


def _gradients(rank: int, port: int, raws: list[dict[str, Any]], pack: str, folder: str) -> None:
    """Two steps of each config, and the parameters without a gradient after them."""
    _join(rank, port)
    missing = []
    for raw in raws:
        parts = build_parts(parse_config(raw), load_pack(Path(pack)), TrialFolder(Path(folder)), Workers(rank, 2))
        parts.model.train()
        step = TrainingStep(parts)
        for number in range(2):
            step(parts.batches[number], [])
        trained = [(name, one) for name, one in parts.model.named_parameters() if one.requires_grad]
        missing.append([name for name, parameter in trained if parameter.grad is None])
    if rank == 0:
        (Path(folder) / "missing.json").write_text(json.dumps(missing))
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_parameter_has_a_gradient_in_each_task_and_feed(make, pack: Pack, tmp_path: Path) -> None:
    """DDP searches for no unused parameters: it would wait for them in the second step."""
    configs = [
        make(pretext={name: {"feed": feed} | ({"share": 0.05} if feed == "mixed" else {})}, data__size=16)
        for name in PRETEXT_TASKS
        for feed in ("shared", "mixed", "siamese")
    ]
    spawn(
        _gradients,
        [one.model_dump(mode="json", exclude_defaults=True) for one in configs],
        str(pack.folder),
        str(tmp_path),
    )
    assert json.loads((tmp_path / "missing.json").read_text()) == [[]] * len(configs)
