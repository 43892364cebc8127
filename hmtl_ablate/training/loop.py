"""train: one trial, from its config and pack to result.json."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Generator, Tensor
from torch.nn.parallel import DistributedDataParallel

from hmtl_ablate.config import TrialConfig, trial_id
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.splits import Splits, split
from hmtl_ablate.errors import CheckpointError, DataError, TrialDiverged, TrialInterrupted
from hmtl_ablate.loss import class_weights, combine
from hmtl_ablate.model import HMTLModel, normalisation
from hmtl_ablate.pretext import PretextTask
from hmtl_ablate.training import evaluate, feeds, pictures
from hmtl_ablate.training.batches import Batch, EvaluationImages, TrainingBatches, seed_of, stream
from hmtl_ablate.training.checkpoint import load_state, save_state
from hmtl_ablate.training.device import Setup, choose, provenance
from hmtl_ablate.training.folder import TrialFolder, TrialResult, write_atomically
from hmtl_ablate.training.metrics import classification_metrics, confusion_matrix
from hmtl_ablate.training.optim import build_optimizer, learning_rate

SELECT_BY = "val/accuracy"
CHECKPOINT_EVERY = 120.0
"""Seconds between checkpoints inside a long epoch."""

OnEpoch = Callable[[dict[str, float]], bool]


def train(config: TrialConfig, pack: Pack, folder: Path, *, evaluate_test: bool, on_epoch: OnEpoch | None = None,
          stop: Callable[[], bool] | None = None, threads: int = 1, rank: int = 0, world_size: int = 1
          ) -> TrialResult:
    """Train one trial to its end and return its result, which then stands in `folder`/result.json.

    Continues from the last checkpoint; returns at once when the trial is over. on_epoch gets each epoch's metrics after
    they are stored; True, from any worker, ends the trial as pruned (and a later call would go on). stop is asked every
    step; on True the trial writes a checkpoint and raises TrialInterrupted. evaluate_test: measure the test split,
    once, with the best weights. With world_size > 1 torch.distributed must be up; rank 0 alone writes. A loss that is
    NaN or infinite gives a result of status failed. Raises DataError, ConfigError, StoreError.
    """
    place = TrialFolder(folder)
    with place.lock() if rank == 0 else nullcontext():
        torch.set_num_threads(threads)
        trial = _Trial(config, pack, place, threads, rank, world_size)
        return trial.run(evaluate_test, on_epoch or (lambda metrics: False), stop or (lambda: False))


class _Trial:
    """State of a running trial: what a checkpoint holds, and what is derived from the config."""

    def __init__(self, config: TrialConfig, pack: Pack, folder: TrialFolder, threads: int, rank: int,
                 world_size: int) -> None:
        self.config, self.pack, self.folder = config, pack, folder
        self.rank, self.world_size, self.threads = rank, world_size, threads
        self.id = trial_id(config, pack.fingerprint)
        self.epoch, self.step, self.passes, self.best_epoch = 1, 0, 0, 0
        self.best, self.seconds = -math.inf, 0.0
        self.sums: dict[str, float] = {}
        self.history: list[dict[str, float]] = []

    def run(self, evaluate_test: bool, on_epoch: OnEpoch, stop: Callable[[], bool]) -> TrialResult:
        result = self.folder.result()
        over = result is not None and (result.status == "failed" or (
            result.status == "finished" and (not evaluate_test or "test/accuracy" in result.metrics)))
        if result is not None and over:
            return result
        if self.rank == 0:
            self.folder.write_config(self.config)
        self._build()
        if result is not None and result.status == "finished":  # a search trial that a variant needs too
            return self._finish("finished", "", evaluate_test)
        self._restore()
        try:
            pruned = self._train(on_epoch, stop)
        except TrialDiverged as error:
            return self._finish("failed", str(error), False)
        if pruned:
            return self._finish("pruned", f"stopped early after epoch {self.epoch - 1}", False)
        return self._finish("finished", "", evaluate_test)

    def _build(self) -> None:
        config = self.config
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        self.setup: Setup = choose(config.training.precision)
        self.classes = self.pack.classes.get(config.task, ())
        if not self.classes:
            raise DataError(f"dataset {self.pack.manifest.name!r} has no labels for task {config.task!r}; it has: "
                            f"{', '.join(sorted(self.pack.classes)) or 'none'}")
        self.splits: Splits = split(self.pack, config.data, config.task)
        for name, rows in (("train", self.splits.train), ("val", self.splits.val)):
            if len(rows) < 2:
                raise DataError(f"dataset {self.pack.manifest.name!r}: {len(rows)} images in {name}; use more data "
                                "or a larger data.fraction")
        torch.manual_seed(config.seed)
        model = HMTLModel(config.model, config.pretext, len(self.classes), config.data.size)
        mean, std = normalisation(model.inference)
        self.norm = (mean.to(self.setup.device), std.to(self.setup.device))
        self.model: HMTLModel = self.setup.place(model)  # type: ignore[assignment]
        self.tasks: dict[str, PretextTask] = dict(self.model.pretext.items())  # type: ignore[arg-type]
        self.step_model: Any = DistributedDataParallel(self.model) if self.world_size > 1 else self.model
        self.optimizer = build_optimizer(self.model, config.training)
        self.batches = TrainingBatches(config, self.pack, self.splits.train, self.rank, self.world_size)
        if self.batches.batch_size < self.world_size:
            raise DataError(f"{self.batches.batch_size} images a step can't be split over {self.world_size} workers")
        self.plan = feeds.streams(config, self.batches.batch_size)
        counts = np.bincount(self.pack.labels[config.task][self.splits.train], minlength=len(self.classes))
        self.class_weights = class_weights(torch.from_numpy(counts), config.loss.class_weights).to(self.setup.device)
        self.val = EvaluationImages(config, self.pack, self.splits.val)
        self.rows = torch.arange(self.rank, self.batches.batch_size, self.world_size)
        self.log(f"{self.setup.reason}; {self.threads} threads, {self.world_size} workers; "
                 f"{len(self.splits.train)} train, {len(self.splits.val)} val, {len(self.splits.test)} test images; "
                 f"{self.batches.steps} steps an epoch of {self.batches.batch_size} images × {len(self.plan)} views")

    # Checkpoints ----------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        path = self.folder.path / "last.safetensors"
        if not path.exists():
            if self.rank == 0:
                self.folder.write_history([])
            return
        state = load_state(path, self.setup.device)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, value in state["progress"].items():
                setattr(self, name, value)
        except (KeyError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path} does not fit this trial: delete the trial's folder and run again") from error
        # An epoch that was logged, but not checkpointed, before a crash is trained again.
        self.history = [row for row in self.folder.history() if row["epoch"] < self.epoch]
        if self.rank == 0:
            self.folder.write_history(self.history)
        self.log(f"continues at epoch {self.epoch}, step {self.step}")

    def _checkpoint(self) -> None:
        if self.rank == 0:
            names = ("epoch", "step", "passes", "best_epoch", "best", "seconds", "sums")
            save_state(self.folder.path / "last.safetensors", {
                "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "progress": {name: getattr(self, name) for name in names}})

    # Training -------------------------------------------------------------------------------------------------

    def _train(self, on_epoch: OnEpoch, stop: Callable[[], bool]) -> bool:
        """Run the epochs that are left; True when on_epoch stopped it."""
        workers = self.threads - 1 if self.setup.device.type == "cuda" else 0
        start = (self.epoch - 1) * self.batches.steps + self.step
        started, saved = time.monotonic(), time.monotonic()
        sums: dict[str, Tensor] = {}
        self.model.train()
        for batch in stream(self.batches, start, workers, pin=self.setup.device.type == "cuda"):
            for name, value in self._optimise(batch).items():
                sums[name] = sums.get(name, 0.0) + value.double()
            self.step, self.passes = batch.step + 1, self.passes + self.batches.batch_size * len(self.plan)
            stopping = self._agree(stop())
            if stopping or self.step == self.batches.steps or time.monotonic() - saved > CHECKPOINT_EVERY:
                self._collect(sums)
                sums = {}
                if self.step == self.batches.steps:
                    pruned = self._end_epoch(on_epoch, started)
                    started = saved = time.monotonic()
                    if pruned or self.epoch > self.config.training.epochs:
                        return pruned
                else:
                    self.seconds += time.monotonic() - started
                    started = saved = time.monotonic()
                    self._checkpoint()
                if stopping:
                    self.log(f"stopped at epoch {self.epoch}, step {self.step}")
                    raise TrialInterrupted(f"stopped at epoch {self.epoch}; the same command goes on from there")
        return False

    def _optimise(self, batch: Batch) -> dict[str, Tensor]:
        """One step; returns what the epoch's means are made of, as scalars on the device, without waiting for it."""
        config, size = self.config, self.batches.batch_size
        seed = seed_of(config.seed, batch.epoch, batch.step)
        torch.manual_seed(seed + self.rank)  # dropout: a continued epoch draws what an unbroken one would
        rate = learning_rate(config.training, batch.epoch - 1 + (batch.step + 1) / self.batches.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        views = self.setup.images(batch.views.flatten(0, 1), *self.norm).unflatten(0, batch.views.shape[:2])
        targets = batch.targets.to(self.setup.device, non_blocking=True)
        given = feeds.give(self.plan, self.tasks, views, self.rows, size, Generator().manual_seed(seed))
        supervised, pretext, right = self._losses(given, targets)
        weights = {name: options.weight for name, options in config.pretext.items()}
        if self.world_size == 1:
            loss = combine(supervised, pretext, weights, config.loss.combine)
            total = loss.detach()
        else:
            loss, total = self._combine_over_workers(supervised, pretext, weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.training.clip)
        self.optimizer.step()
        return {"loss": total, "supervised": supervised.detach(), "accuracy": right,
                **{name: value.detach() for name, value in pretext.items()}}

    def _losses(self, given: list[feeds.Given], targets: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Supervised loss, pretext losses, and share of images told right.

        Each is scaled so that its mean over the workers is the mean over the global batch.
        """
        by_side: dict[int, list[feeds.Given]] = {}
        for item in given:  # views of one size go through the backbone together
            by_side.setdefault(item.images.shape[-1], []).append(item)
        groups = [_group(items) for items in by_side.values()]
        with self.setup.autocast():
            results = self.step_model([(images, {name: rows for name, (rows, _) in tasks.items()})
                                       for images, _, _, tasks in groups])
        zero = torch.zeros((), device=targets.device)
        supervised, right, pretext = zero, zero, dict.fromkeys(self.tasks, zero)
        for (images, whole, weights, tasks), (logits, outputs) in zip(groups, results, strict=True):
            logits = logits.float()
            repeated = targets.repeat(len(images) // len(targets))
            error = F.cross_entropy(logits, repeated, reduction="none",
                                    label_smoothing=self.config.loss.label_smoothing)
            supervised = supervised + (error * weights * self.class_weights[repeated]).sum()
            right = right + (logits.detach().argmax(dim=1) == repeated).sum()
            for name, (rows, draw) in tasks.items():
                output = outputs[name].float()
                pretext[name] = pretext[name] + self.tasks[name].loss(output, whole[rows], draw).sum()
        size = self.batches.batch_size
        supervised = supervised * self.world_size / feeds.supervised_total(self.plan, size)
        totals = feeds.changed_total(self.plan)
        pretext = {name: loss * self.world_size / totals[name] for name, loss in pretext.items()}
        return supervised, pretext, right * self.world_size / (size * len(self.plan))

    def _combine_over_workers(self, supervised: Tensor, pretext: dict[str, Tensor], weights: dict[str, float]
                              ) -> tuple[Tensor, Tensor]:
        """A local loss whose gradient, averaged over the workers, is that of the combined global losses.

        DDP averages gradients, which is exact for a sum of means only. So the combination is differentiated at the
        global losses, and each local loss is weighted with that derivative.
        """
        local = torch.stack([supervised, *pretext.values()])
        whole = local.detach().clone()
        dist.all_reduce(whole)
        whole = (whole / self.world_size).requires_grad_()
        total = combine(whole[0], dict(zip(pretext, whole[1:], strict=True)), weights, self.config.loss.combine)
        (slopes,) = torch.autograd.grad(total, whole)
        return (slopes * local).sum(), total.detach()

    def _agree(self, flag: bool) -> bool:
        """True on all workers when it is on any."""
        if self.world_size == 1:
            return flag
        vote = torch.tensor(float(flag), device=self.setup.device)
        dist.all_reduce(vote, op=dist.ReduceOp.MAX)
        return bool(vote.item())

    def _collect(self, sums: dict[str, Tensor]) -> None:
        """Add the steps' sums to the epoch's, and end the trial when a loss was no finite number."""
        for name, value in sums.items():
            if self.world_size > 1:
                value = value / self.world_size
                dist.all_reduce(value)
            self.sums[name] = self.sums.get(name, 0.0) + value.item()
        if not math.isfinite(self.sums.get("loss", 0.0)):
            bad = [name for name in ("supervised", *self.tasks) if not math.isfinite(self.sums.get(name, 0.0))]
            raise TrialDiverged(f"the loss became NaN or infinite in epoch {self.epoch} ({', '.join(bad) or 'sum'}): "
                                "lower training.lr or the pretext weight, or set training.clip")

    # Ends of epochs and of the trial --------------------------------------------------------------------------

    def _end_epoch(self, on_epoch: OnEpoch, started: float) -> bool:
        means = {f"train/{name}": total / self.batches.steps for name, total in self.sums.items()}
        trained = time.monotonic() - started + 1e-9
        val, _ = self._evaluate(self.val)
        row: dict[str, float] = {"epoch": self.epoch, **means, **{f"val/{k}": v for k, v in val.items()}}
        if self.tasks and self.rank == 0:
            scores = evaluate.score_pretext(self.model, self.val, self.setup, self.norm, self.config.data.seed)
            row |= {f"val/{name}": value for name, value in scores.items()}
            if self.epoch in {1, self.config.training.epochs // 2, self.config.training.epochs}:
                self._picture()
        self.seconds += time.monotonic() - started
        row |= {"lr": self.optimizer.param_groups[0]["lr"], "image_passes": self.passes,
                "seconds": round(self.seconds, 3),
                "images_per_second": round(self.batches.steps * self.batches.batch_size * len(self.plan) / trained, 1)}
        if row[SELECT_BY] > self.best:
            self.best, self.best_epoch = row[SELECT_BY], self.epoch
            if self.rank == 0:
                weights = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
                write_atomically(self.folder.path / "best.safetensors", save(weights))
        self.history.append(row)
        if self.rank == 0:
            self.folder.append_history(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        self._checkpoint()
        self.model.train()
        return self._agree(on_epoch(row)) and self.epoch <= self.config.training.epochs

    def _evaluate(self, images: EvaluationImages) -> tuple[dict[str, float], Tensor]:
        logits = evaluate.predict(self.model.inference, images, self.setup, self.norm, self.rank, self.world_size)
        return classification_metrics(logits, torch.from_numpy(images.targets), self.classes), logits

    def _picture(self) -> None:
        """Whole, changed and rebuilt faces of val, the same ones at every epoch."""
        rows = np.linspace(0, len(self.val.indices) - 1, min(8, len(self.val.indices))).round().astype(int)
        whole = self.setup.images(self.val.take(rows), *self.norm)
        mean, std = self.norm
        for name, task in self.tasks.items():
            with torch.inference_mode():
                output, draw = evaluate.attempt(self.model, task, whole, self.setup, Generator().manual_seed(0))
                shown = {"true": whole, "changed": task.change(whole, draw),
                         "rebuilt": task.rebuilt(output, whole, draw)}
            pictures.save_rows(self.folder.path / "pictures" / f"{name}-epoch-{self.epoch:04d}.png",
                               [(label, images * std + mean) for label, images in shown.items()])

    def _finish(self, status: Any, reason: str, evaluate_test: bool) -> TrialResult:
        if status == "finished" and not self.history:
            self.history = self.folder.history()
            self._restore()
        metrics: dict[str, float] = {}
        confusion: dict[str, list[list[int]]] = {}
        if self.best_epoch:
            best = next(row for row in self.history if row["epoch"] == self.best_epoch)
            metrics = {f"best/{name}": value for name, value in best.items() if name.startswith("val/")}
        if status == "finished":
            self._load_best()
            held = {"val": self.val}
            if evaluate_test:
                held["test"] = EvaluationImages(self.config, self.pack, self.splits.test)
            predictions: dict[str, np.ndarray] = {}
            for name, images in held.items():
                found, logits = self._evaluate(images)
                if name == "test":
                    metrics |= {f"test/{key}": value for key, value in found.items()}
                confusion[name] = confusion_matrix(logits, torch.from_numpy(images.targets), self.classes)
                predictions |= {f"{name}_index": images.indices, f"{name}_label": images.targets,
                                f"{name}_probability": logits.softmax(dim=1).numpy()}
            if self.rank == 0:
                self._write_predictions(predictions)
                for name, counts in confusion.items():
                    pictures.save_confusion(self.folder.path / "pictures" / f"confusion-{name}.png", counts,
                                            self.classes)
        result = TrialResult(
            trial_id=self.id, status=status, reason=reason, epochs=self.epoch - 1, best_epoch=self.best_epoch,
            metrics=metrics, image_passes=self.passes, seconds=round(self.seconds, 3),
            tags=provenance(self.setup, self.threads, self.world_size), classes=list(self.classes),
            confusion=confusion)
        if self.rank == 0:
            self.folder.write_result(result)
        self.log(f"{status} {reason}".strip())
        return result

    def _load_best(self) -> None:
        path = self.folder.path / "best.safetensors"
        try:
            self.model.load_state_dict(load_file(path, device=str(self.setup.device)))
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"can't load {path}: delete this trial's folder and run again") from error

    def _write_predictions(self, arrays: dict[str, np.ndarray]) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(self.folder.path / "predictions.npz", buffer.getvalue())

    def log(self, text: str) -> None:
        if self.rank == 0:
            self.folder.log(text)


def _group(items: list[feeds.Given]) -> tuple[Tensor, Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Streams of one size as one: images, whole images, supervised weights, and each task's rows and draws."""
    tasks: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    start = 0
    for item in items:
        for name, (rows, draw) in item.tasks.items():
            known = tasks.setdefault(name, ([], []))
            known[0].append(rows + start)
            known[1].append(draw)
        start += len(item.images)
    joined = {name: (torch.cat(rows), torch.cat(draws)) for name, (rows, draws) in tasks.items()}
    return (torch.cat([item.images for item in items]), torch.cat([item.whole for item in items]),
            torch.cat([item.weights for item in items]), joined)
