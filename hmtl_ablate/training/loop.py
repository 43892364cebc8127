"""train: one trial, from its config and pack to result.json."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hmtl_ablate.config import TrialConfig, trial_id
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import CheckpointError, OutOfMemory, TrialDiverged, TrialInterrupted, first_line
from hmtl_ablate.training.batches import Batch, stream
from hmtl_ablate.training.checkpoint import load_state, load_tensors, save_state
from hmtl_ablate.training.device import (
    Device,
    forget_peak,
    is_out_of_memory,
    peak_memory,
    provenance,
    torch_state,
    unused_memory_returned,
    uses_gpu,
)
from hmtl_ablate.training.folder import LAST, TrialFolder, TrialResult, is_complete, passes_before
from hmtl_ablate.training.measure import BEST, Measured, draw_pretext, measure_best, save_best, validate
from hmtl_ablate.training.optim import synchronise
from hmtl_ablate.training.parts import Parts, build_parts
from hmtl_ablate.training.probe import probe
from hmtl_ablate.training.revision import revision
from hmtl_ablate.training.step import TrainingStep
from hmtl_ablate.training.workers import Workers

CHECKPOINT_EVERY = 120.0
"""Seconds between checkpoints inside a long epoch."""
VOTE_EVERY = 10
"""Steps between the votes of several workers on a stop or a checkpoint: a vote waits for the GPU."""
WAIT = 0.5
"""Seconds between two looks at a folder that another process trains in."""

OnEpoch = Callable[[dict[str, float]], bool]


def train(
    config: TrialConfig,
    pack: Pack,
    folder: Path,
    *,
    evaluate_test: bool,
    on_epoch: OnEpoch | None = None,
    stop: Callable[[], bool] | None = None,
    threads: int = 1,
    rank: int = 0,
    world_size: int = 1,
    device: Device = "auto",
    share: float = 1.0,
    pieces: int = 1,
    keep_last: bool = False,
) -> TrialResult:
    """Train one trial and return its result, which is also written to `folder`/result.json.

    Resumes from the last checkpoint; returns at once when the trial is complete. A file of the folder that is damaged
    is renamed to `*.damaged`, and the trial is trained again from where it can be. While another process trains in the
    folder, this one waits for it. A loss that is NaN or infinite gives a result of status failed. A config whose
    `probe` is set runs that probe instead, on rank 0. Torch's thread count and deterministic mode are restored at the
    end.

    Args:
        config: The trial. Weights of another trial (`trial:ID`) are looked up next to `folder`.
        pack: The dataset.
        folder: The trial's folder, created when missing.
        evaluate_test: Measure the test split, once, with the best weights.
        on_epoch: Called with each epoch's metrics after they are stored. True, from any worker, ends the trial as
            pruned; a later call resumes it.
        stop: Called after every step; with several workers, after each epoch and VOTE_EVERY steps. On True the trial
            writes a checkpoint and raises TrialInterrupted.
        threads: CPU threads of this process.
        rank: Number of this worker, from 0; rank 0 alone writes.
        world_size: Number of workers; with more than one, torch.distributed must be initialized.
        device: cpu, cuda for this process's current GPU, or auto for that GPU when there is one.
        share: Share of the GPU that this process may use, above 0, at most 1.
        pieces: Pieces in which a worker's share of a batch is trained. When a GPU's memory runs out, a trial of one
            worker resumes by itself from its last checkpoint with twice as many.
        keep_last: Keep the checkpoint of a trial that has finished or failed. That of a pruned one is always kept.

    Raises:
        DataError, ConfigError, StoreError: the trial can't be trained as declared, or its folder can't be written.
        OutOfMemory: a GPU's memory ran out, with one worker the second time.
        ClusterError: `device` is cuda and there is no GPU.
        TrialInterrupted: `stop` returned True.
    """
    place, workers, gpu = TrialFolder(folder), Workers(rank, world_size), uses_gpu(device)
    on_epoch, stop = on_epoch or (lambda metrics: False), stop or (lambda: False)
    state = torch_state(threads, gpu, config.training.deterministic)
    with _held(place, workers, stop), state, unused_memory_returned(gpu):
        if workers.writes:
            place.sweep()
            place.set_damage_aside()
        result = workers.share(place.result() if workers.writes else None)
        if result is not None and is_complete(config, result, evaluate_test):
            if workers.writes and not keep_last:  # a crash may have left it
                place.drop_checkpoint(result)
            return result
        if workers.writes:
            place.write_config(config)
            place.write_diff(revision().diff)

        def attempt(pieces: int) -> TrialResult:
            forget_peak(gpu)
            if config.probe.kind != "none":
                return probe(
                    config,
                    pack,
                    place,
                    evaluate_test=evaluate_test,
                    on_epoch=on_epoch,
                    stop=stop,
                    threads=threads,
                    write=workers.writes,
                    device=device,
                    pieces=pieces,
                )
            id = trial_id(config, pack.identity(config.tasks))
            trial = _Trial(build_parts(config, pack, place, workers, device, share), id, threads, pieces, keep_last)
            if not trial.resume(result):
                trial = _Trial(build_parts(config, pack, place, workers, device, share), id, threads, pieces, keep_last)
                trial.resume(result)
            return trial.run(result, evaluate_test, on_epoch, stop)

        result = _within_memory(attempt, pieces, place, workers)
        if workers.writes and not keep_last:
            place.drop_checkpoint(result)
        return result


def _within_memory(
    attempt: Callable[[int], TrialResult], pieces: int, place: TrialFolder, workers: Workers
) -> TrialResult:
    """attempt(pieces) and, when a GPU's memory runs out, once more with twice the pieces. Raises OutOfMemory.

    One of several workers can't do so by itself: the others wait for it in the middle of a step. All must be started
    again.
    """
    try:
        return attempt(pieces)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
        if pieces > 1 or workers.count > 1:
            raise OutOfMemory(
                f"the GPU's memory ran out: {reason} (each batch in {pieces} {'piece' if pieces == 1 else 'pieces'}); "
                "lower training.batch_size or data.size, or let fewer trials share a GPU (resources.gpus)"
            ) from error
    # Not in the except clause, where the exception still holds the tensors of the failed step.
    place.log(f"the GPU's memory ran out: {reason}")
    with unused_memory_returned(torch.cuda.is_initialized()):
        return _within_memory(attempt, 2 * pieces, place, workers)


@contextmanager
def _held(place: TrialFolder, workers: Workers, stop: Callable[[], bool]) -> Iterator[None]:
    """The folder's lock, in worker 0. A folder that another run trains in is waited for: its result is ours, too."""
    with ExitStack() as stack:
        while True:
            file = place.locked() if workers.writes else None
            if file is not None:
                stack.enter_context(file)
            if workers.share(file is not None):
                break
            if workers.share(stop()):
                raise TrialInterrupted("stopped before it started; run the same command again")
            time.sleep(WAIT)
        yield


@dataclass
class Progress:
    """How far a trial is: what a checkpoint holds in addition to the model and the optimiser."""

    passes: int
    """Images the backbone was trained on, each view counted."""
    epoch: int = 1
    """The current epoch, from 1."""
    step: int = 0
    """Steps done in the current epoch."""
    best_epoch: int = 0
    best: float = -math.inf
    """Value of the selection metric at the best epoch, higher is better."""
    seconds: float = 0.0
    """Time spent in training and validation, over all sessions."""
    pieces: int = 1
    """Pieces in which a worker's share of a batch is trained: 2 after a GPU's memory ran out."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over the steps of the current epoch: loss, accuracy and each task's loss."""


class _Trial:
    """The epochs of a trial: their order, checkpoints, time, selection and end."""

    def __init__(self, parts: Parts, id: str, threads: int, pieces: int, keep_last: bool = False) -> None:
        """pieces: the least number of them; a checkpoint may ask for more."""
        self.parts, self.id, self.threads, self.pieces, self.keep_last = parts, id, threads, pieces, keep_last
        self.config, self.folder, self.workers = parts.config, parts.folder, parts.workers
        self.optimise = TrainingStep(parts)
        self.progress = Progress(passes_before(self.config, self.folder.path.parent))
        self.history: list[dict[str, float]] = []

    def run(
        self, result: TrialResult | None, evaluate_test: bool, on_epoch: OnEpoch, stop: Callable[[], bool]
    ) -> TrialResult:
        """Train what is left and measure. result: that of a trial which is to be measured, or trained, further."""
        splits, batches = self.parts.splits, self.parts.batches
        self.parts.log(
            f"{self.parts.setup.reason}; {self.threads} threads, {self.workers.count} workers; "
            f"{len(splits.train)} train, {len(splits.val)} val, {len(splits.test)} test images; "
            f"{batches.steps} steps per epoch of {batches.batch_size} images × {len(self.parts.plan)} views"
        )
        if self.history or self.progress.step:
            self.parts.log(f"resumes at epoch {self.progress.epoch}, step {self.progress.step}")
        trained = self.progress.epoch > self.config.training.epochs
        if result is not None and result.status == "finished" and trained:  # a search trial that a variant needs too
            return self._finish("finished", "", evaluate_test)
        try:
            pruned = self._train(on_epoch, stop)
        except TrialDiverged as error:
            return self._finish("failed", str(error), False)
        if pruned:
            return self._finish("pruned", f"stopped early after epoch {self.progress.epoch - 1}", False)
        return self._finish("finished", "", evaluate_test)

    # Checkpoints ----------------------------------------------------------------------------------------------

    def resume(self, result: TrialResult | None) -> bool:
        """Continue from the checkpoint; without one from the `result` of a finished trial, or from nothing.

        False: it can't be used and is now set aside, and the model may be half overwritten. Raises CheckpointError, on
        all workers, when they see different checkpoints.
        """
        path, device = self.folder.path / LAST, self.parts.setup.device
        found = path.exists()
        self._require_agreement(found)
        if not found:
            if result is not None and result.status == "finished":  # it is to be measured, with the best weights
                self._recall(result)
            self._begin()
            return True
        problem, damaged = "", LAST
        try:
            self._load(load_state(path))
            if self.progress.best_epoch:
                damaged = BEST
                load_tensors(self.folder.path / BEST)
        except CheckpointError as error:
            problem = str(error)
        if not any(self.workers.vote(device, bool(problem))):
            self._begin()
            return True
        if self.workers.writes:
            self.parts.log(problem)
            self.folder.set_aside(damaged)
            path.unlink(missing_ok=True)  # what is left of it has no use without the other
        return False

    def _recall(self, result: TrialResult) -> None:
        """Take up a finished trial where it ended; its model gets the best weights when they are measured."""
        self.history = self.folder.history()
        self.progress = Progress(
            passes=result.image_passes,
            epoch=result.epochs + 1,
            best_epoch=result.best_epoch,
            seconds=result.seconds,
            pieces=int(result.tags.get("pieces", 1)),
        )

    def _begin(self) -> None:
        """What follows once the state to start from is known: metrics.jsonl and the pieces of a batch."""
        if self.workers.writes:  # whole, and without an epoch that was logged after the checkpoint
            self.folder.write_history(self.history)
        most = self.parts.batches.batch_size // self.workers.count  # a piece has an image at least
        self.progress.pieces = min(max(self.progress.pieces, self.pieces), most)
        self.optimise.pieces = self.progress.pieces
        if self.progress.pieces > 1:
            self.parts.log(f"trains each batch in {self.progress.pieces} pieces{self._changed_by_pieces()}")
        self._require_agreement(self.progress.epoch, self.progress.step, self.progress.pieces)

    def _require_agreement(self, *numbers: float) -> None:
        if not self.workers.agree(self.parts.setup.device, numbers):
            raise CheckpointError(
                f"the workers of this trial see different checkpoints in {self.folder.path}: the store must be one "
                "folder that all nodes share"
            )

    def _changed_by_pieces(self) -> str:
        """What makes the numbers differ from those of whole batches, in words."""
        modules = list(self.parts.model.modules())
        found = []
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
            found.append("batch norm sees one piece at a time")
        if any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 for module in modules):
            found.append("dropout draws other numbers")
        if self.config.loss.views == "geometric" and len(self.parts.plan) > 1:
            found.append("the geometric mean over views is one of each piece")
        return f"; the numbers are not those of whole batches: {' and '.join(found)}" if found else ""

    def _load(self, state: Any) -> None:
        try:
            self.parts.model.load_state_dict(state["model"])
            self.parts.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
            self.history = list(state["history"])
        except (KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{self.folder.path / LAST} does not fit this trial: {error}") from error

    def _checkpoint(self) -> None:
        if self.workers.writes:
            save_state(
                self.folder.path / LAST,
                {
                    "model": self.parts.model.state_dict(),
                    "optimizer": self.parts.optimizer.state_dict(),
                    "progress": asdict(self.progress),
                    "history": self.history,
                },
            )

    # Epochs ---------------------------------------------------------------------------------------------------

    def _train(self, on_epoch: OnEpoch, stop: Callable[[], bool]) -> bool:
        """Run the remaining epochs; True when on_epoch ended the trial early."""
        batches, progress = self.parts.batches, self.progress
        images = batches.batch_size * len(self.parts.plan)
        started = saved = time.monotonic()
        sums: dict[str, Tensor] = {}
        self.parts.model.train()
        for batch in stream(batches, (progress.epoch - 1) * batches.steps + progress.step):
            for name, value in self.optimise(batch, self.history).items():
                sums[name] = sums.get(name, 0.0) + value.double()
            progress.step, progress.passes = batch.step + 1, progress.passes + images
            stopping, due = self._vote(stop, saved)
            if stopping or due or progress.step == batches.steps:
                self._collect(sums)
                sums = {}
                if progress.step == batches.steps:
                    pruned = self._end_epoch(batch, on_epoch, started)
                    started = saved = time.monotonic()
                    if pruned or progress.epoch > self.config.training.epochs:
                        return pruned
                else:
                    progress.seconds += time.monotonic() - started
                    started = saved = time.monotonic()
                    self._checkpoint()
                if stopping:
                    self.parts.log(f"stopped at epoch {progress.epoch}, step {progress.step}")
                    raise TrialInterrupted(f"stopped at epoch {progress.epoch}; run the same command again to resume")
        return False

    def _vote(self, stop: Callable[[], bool], saved: float) -> tuple[bool, bool]:
        """Whether to stop, and whether to write a checkpoint, the last one being of time `saved`.

        All workers get the same answer. Each has a clock of its own, so one of them may find a checkpoint due a step
        earlier than the others.
        """
        step = self.progress.step
        if self.workers.count > 1 and step % VOTE_EVERY and step < self.parts.batches.steps:
            return False, False
        late = time.monotonic() - saved > CHECKPOINT_EVERY
        stopping, due = self.workers.vote(self.parts.setup.device, stop(), late)
        return stopping, due

    def _collect(self, sums: Mapping[str, Tensor]) -> None:
        """Add the steps' sums to the epoch's. Raises TrialDiverged when a loss is NaN or infinite."""
        total = self.progress.sums
        means = self.workers.mean(torch.stack(list(sums.values()))).tolist()  # one transfer from the device
        for name, value in zip(sums, means, strict=True):
            total[name] = total.get(name, 0.0) + value
        if not math.isfinite(total.get("loss", 0.0)):
            names = (self.parts.logged(name) for name in (*self.parts.supervised, *self.parts.pretext))
            bad = [name for name in names if not math.isfinite(total.get(name, 0.0))]
            raise TrialDiverged(
                f"the loss became NaN or infinite in epoch {self.progress.epoch} ({', '.join(bad) or 'sum'}): "
                "lower training.lr or the pretext weight, or set training.clip"
            )

    def _end_epoch(self, batch: Batch, on_epoch: OnEpoch, started: float) -> bool:
        """Measure, validate, store the epoch's row and a checkpoint; True when on_epoch ends the trial early.

        batch: the epoch's last one, on which the gradients are measured.
        """
        progress, batches, epochs = self.progress, self.parts.batches, self.config.training.epochs
        trained = time.monotonic() - started + 1e-9
        row: dict[str, float] = {"epoch": progress.epoch}
        row |= {f"train/{name}": total / batches.steps for name, total in progress.sums.items()}
        row |= self.optimise.gradients(batch)
        synchronise(self.parts.optimizer)
        row |= validate(self.parts)
        if self.parts.pretext and self.workers.writes and progress.epoch in {1, epochs // 2, epochs}:
            draw_pretext(self.parts, progress.epoch)
        progress.seconds += time.monotonic() - started
        row |= {
            "lr": self.parts.optimizer.param_groups[0]["lr"],
            "image_passes": progress.passes,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(batches.steps * batches.batch_size * len(self.parts.plan) / trained, 1),
        }
        value = selection_value(self.config, row)
        if value > progress.best:
            progress.best, progress.best_epoch = value, progress.epoch
            if self.workers.writes:
                save_best(self.parts)
        self.history.append(row)
        if self.workers.writes:
            self.folder.append_history(row)
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        self._checkpoint()
        self.parts.model.train()
        (pruned,) = self.workers.vote(self.parts.setup.device, on_epoch(row))
        return pruned and progress.epoch <= epochs

    # The end --------------------------------------------------------------------------------------------------

    def _finish(self, status: Literal["finished", "pruned", "failed"], reason: str, evaluate_test: bool) -> TrialResult:
        progress, supervised = self.progress, self.parts.supervised
        measured = Measured({}, {})
        if status == "finished" and supervised:
            measured = measure_best(self.parts, evaluate_test)
        metrics = best_metrics(self.history, progress.best_epoch) | measured.metrics
        result = TrialResult(
            trial_id=self.id,
            status=status,
            reason=reason,
            epochs=progress.epoch - 1,
            best_epoch=progress.best_epoch,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            image_passes=progress.passes,
            seconds=round(progress.seconds, 3),
            tags=provenance(self.parts.setup, self.threads, self.workers.count)
            | {
                "pieces": str(progress.pieces),
                "batch_norm": batch_norm(self.parts.model, self.workers, progress.pieces),
            }
            | peak_memory(self.parts.setup.device.type == "cuda")
            | ({"keep_last": "yes"} if self.keep_last else {}),  # `clean` keeps it, too
            classes=[name for task in list(supervised.values())[:1] for name in task.classes],
            task_classes={name: list(task.classes) for name, task in supervised.items()},
            confusion=measured.confusion,
        )
        if self.workers.writes:
            self.folder.write_history(self.history)  # on the disk before the result that counts on it
            result = self.folder.write_result(result)
        self.parts.log(f"{status} {reason}".strip())
        return result


def batch_norm(model: nn.Module, workers: Workers, pieces: int) -> str:
    """What batch norm takes its statistics over: "none" in a model without, "batch", or, with several workers or
    pieces, "1/4 of a batch". Results that differ in it are not of one population."""
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return "none"
    parts = workers.count * pieces
    return "batch" if parts == 1 else f"1/{parts} of a batch"


def selection_value(config: TrialConfig, row: Mapping[str, float]) -> float:
    """The value that selects the weights, higher is better: a metric of val, or, without one, the epoch."""
    metric = config.selects_by
    if not metric:
        return row["epoch"]
    return row[metric] if config.metrics[metric.removeprefix("val/")] == "max" else -row[metric]


def best_metrics(history: Sequence[Mapping[str, float]], best_epoch: int) -> dict[str, float]:
    """`best/val/…` of the best epoch; empty when best_epoch is 0."""
    if not best_epoch:
        return {}
    best = next(row for row in history if row["epoch"] == best_epoch)
    return {f"best/{name}": value for name, value in best.items() if name.startswith("val/")}
