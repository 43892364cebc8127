"""train: one trial, from its config and pack to result.json."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.nn.parallel import DistributedDataParallel

from hmtl_ablate.config import TrialConfig, trial_id
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.splits import Splits, split
from hmtl_ablate.errors import CheckpointError, DataError, TrialDiverged, TrialInterrupted
from hmtl_ablate.loss import (
    dynamic_weights,
    focused_geometric_mean,
    geometric_mean,
    project_conflicting,
    uncertainty,
    weighted_sum,
)
from hmtl_ablate.model import HMTLModel, normalisation
from hmtl_ablate.pretext import PretextTask
from hmtl_ablate.supervised import SupervisedTask
from hmtl_ablate.supervised.classification import confusion_matrix
from hmtl_ablate.to_device import to_device
from hmtl_ablate.training import evaluate, feeds, pictures
from hmtl_ablate.training.batches import Batch, EvaluationImages, TrainingBatches, seed_of, stream
from hmtl_ablate.training.checkpoint import load_state, save_state
from hmtl_ablate.training.device import Setup, provenance, select_device
from hmtl_ablate.training.folder import TrialFolder, TrialResult, is_complete, passes_before, replacing
from hmtl_ablate.training.optim import build_optimizer, learning_rate
from hmtl_ablate.training.probe import probe
from hmtl_ablate.training.supervised import build_tasks, named

CHECKPOINT_EVERY = 120.0
"""Seconds between checkpoints inside a long epoch."""

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
) -> TrialResult:
    """Train one trial to its end and return its result, which then stands in `folder`/result.json.

    Continues from the last checkpoint; returns at once when the trial is over. on_epoch gets each epoch's metrics after
    they are stored; True, from any worker, ends the trial as pruned (and a later call would go on). stop is asked every
    step; on True the trial writes a checkpoint and raises TrialInterrupted. evaluate_test: measure the test split,
    once, with the best weights. With world_size > 1 torch.distributed must be up; rank 0 alone writes. A loss that is
    NaN or infinite gives a result of status failed. A config whose `probe` is set trains that alone, on rank 0. Weights
    of another trial are looked for beside `folder`. Raises DataError, ConfigError, StoreError.
    """
    place = TrialFolder(folder)
    with place.lock() if rank == 0 else nullcontext():
        torch.set_num_threads(threads)
        result = place.result()
        if result is not None and is_complete(config, result, evaluate_test):
            return result
        on_epoch, stop = on_epoch or (lambda metrics: False), stop or (lambda: False)
        if config.probe.kind != "none":
            return probe(
                config,
                pack,
                place,
                evaluate_test=evaluate_test,
                on_epoch=on_epoch,
                stop=stop,
                threads=threads,
                write=rank == 0,
            )
        trial = _Trial(config, pack, place, threads, rank, world_size)
        return trial.run(result, evaluate_test, on_epoch, stop)


class _Trial:
    """State of a running trial: what a checkpoint holds, and what is derived from the config."""

    def __init__(
        self, config: TrialConfig, pack: Pack, folder: TrialFolder, threads: int, rank: int, world_size: int
    ) -> None:
        self.config, self.pack, self.folder = config, pack, folder
        self.rank, self.world_size, self.threads = rank, world_size, threads
        self.id = trial_id(config, pack.identity(config.tasks))
        self.epoch, self.step, self.passes, self.best_epoch = 1, 0, 0, 0
        self.best, self.seconds = -math.inf, 0.0
        self.sums: dict[str, float] = {}
        self.history: list[dict[str, float]] = []

    def run(
        self, result: TrialResult | None, evaluate_test: bool, on_epoch: OnEpoch, stop: Callable[[], bool]
    ) -> TrialResult:
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
        torch.use_deterministic_algorithms(True, warn_only=True)
        # A debugging aid that comes with it, and takes 4 % of a small net's step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        self.setup: Setup = select_device(self.config.training.precision)
        self._build_tasks()
        self._build_model()
        self._build_steps()
        self.log(
            f"{self.setup.reason}; {self.threads} threads, {self.world_size} workers; "
            f"{len(self.splits.train)} train, {len(self.splits.val)} val, {len(self.splits.test)} test images; "
            f"{self.batches.steps} steps an epoch of {self.batches.batch_size} images × {len(self.plan)} views"
        )

    def _build_tasks(self) -> None:
        """Splits, supervised tasks, and each one's columns of the model's outputs."""
        config, name = self.config, self.pack.manifest.name
        self.splits: Splits = split(self.pack, config.data, config.tasks, unlabelled=not config.training.supervised)
        for part, rows in (("train", self.splits.train), ("val", self.splits.val)):
            if len(rows) < 2:
                raise DataError(
                    f"dataset {name!r}: {len(rows)} images in {part}; use more data or a larger data.fraction"
                )
        self.supervised: dict[str, SupervisedTask] = {}
        if config.training.supervised:
            self.supervised = build_tasks(config, self.pack, self.splits.train)
            first = self.supervised[config.tasks[0]]
            if not first.present(first.targets(self.splits.val)).any():
                raise DataError(
                    f"dataset {name!r}: no image of val has a label for {config.tasks[0]}, which selects "
                    "the weights; name another task first"
                )
        ends = np.cumsum([task.width for task in self.supervised.values()]).tolist()
        self.columns = {
            name: slice(end - task.width, end) for (name, task), end in zip(self.supervised.items(), ends, strict=True)
        }
        self.weights = {name: config.loss.task_weight(name) for name in self.supervised} | {
            name: options.weight for name, options in config.pretext.items()
        }

    def _build_model(self) -> None:
        config, trials = self.config, self.folder.path.parent
        torch.manual_seed(config.seed)
        model = HMTLModel(config, sum(task.width for task in self.supervised.values()) or 1)
        if not self.supervised:
            model.inference.head.requires_grad_(False)
        model.load_sources(config, trials)
        self.passes = passes_before(config, trials)
        mean, std = normalisation(model.inference)
        self.norm = (mean.to(self.setup.device), std.to(self.setup.device))
        self.model: HMTLModel = self.setup.place(model)  # type: ignore[assignment]
        self.tasks: dict[str, PretextTask] = dict(self.model.pretext.items())  # type: ignore[arg-type]
        # pcgrad needs each task's gradient by itself, which DDP does not give: the step averages them.
        spread = self.world_size > 1 and config.loss.combine != "pcgrad"
        self.step_model: Any = DistributedDataParallel(self.model) if spread else self.model
        self.optimizer = build_optimizer(self.model, config.training)

    def _build_steps(self) -> None:
        self.batches = TrainingBatches(
            self.config, self.pack, self.splits.train, self.supervised, self.rank, self.world_size, self.setup
        )
        if self.batches.batch_size < self.world_size:
            raise DataError(f"{self.batches.batch_size} images a step can't be split over {self.world_size} workers")
        self.plan = feeds.streams(self.config, self.batches.batch_size)
        self.val = EvaluationImages(self.config, self.pack, self.splits.val)
        self.rows = torch.arange(self.rank, self.batches.batch_size, self.world_size)

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
            save_state(
                self.folder.path / "last.safetensors",
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "progress": {name: getattr(self, name) for name in names},
                },
            )

    # Training -------------------------------------------------------------------------------------------------

    def _train(self, on_epoch: OnEpoch, stop: Callable[[], bool]) -> bool:
        """Run the epochs that are left; True when on_epoch stopped it."""
        start = (self.epoch - 1) * self.batches.steps + self.step
        started, saved = time.monotonic(), time.monotonic()
        sums: dict[str, Tensor] = {}
        self.model.train()
        for batch in stream(self.batches, start):
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
        targets = {name: to_device(values, self.setup.device) for name, values in batch.targets.items()}
        given = feeds.build_inputs(self.plan, self.tasks, views, self.rows, size, Generator().manual_seed(seed))
        losses, right = self._losses(given, targets, batch.labelled)
        self.optimizer.zero_grad(set_to_none=True)
        if config.loss.combine == "pcgrad":
            total = self._surgery(losses, Generator().manual_seed(seed_of(seed, 1)))
        elif self.world_size == 1:
            loss = self._combined(losses)
            loss.backward()
            total = loss.detach()
        else:
            total = self._combined_over_workers(losses)
        if config.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.training.clip)
        self.optimizer.step()
        return {"loss": total, **right, **{self._logged(name): value.detach() for name, value in losses.items()}}

    def _logged(self, name: str) -> str:
        """A loss's name in the history: that of a lone supervised task is `supervised`."""
        return "supervised" if name in self.supervised and len(self.supervised) == 1 else name

    def _losses(
        self, given: list[feeds.ModelInput], targets: Mapping[str, Tensor], labelled: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of each supervised and pretext task, and the share of images each classification told right.

        targets: task → [V, b, …]; labelled: task → bool of the global batch. Each loss is scaled so that its mean over
        the workers is the mean over the global batch; a missing label counts in neither.
        """
        with self.setup.autocast():
            results = self.step_model(
                [(group.images, {name: asked.rows for name, asked in group.asked.items()}) for group in given]
            )
        zero = torch.zeros((), device=self.setup.device)
        losses: dict[str, Tensor] = dict.fromkeys((*self.supervised, *self.tasks), zero)
        right: dict[str, Tensor] = {}
        for group, (outputs, answers) in zip(given, results, strict=True):
            for name, task in self.supervised.items():
                own = outputs[:, self.columns[name]].float()
                wanted = torch.cat([targets[name][view] for view in group.views])
                losses[name] = losses[name] + (task.loss(own, wanted) * group.weights).sum()
                if task.classes:
                    right[name] = right.get(name, zero) + (own.detach().argmax(dim=1) == wanted).sum()
            for name, asked in group.asked.items():
                with self.setup.autocast():  # a perceptual network runs in the step's own precision
                    errors = self.tasks[name].loss(answers[name].float(), asked.before, asked.draw)
                losses[name] = losses[name] + errors.float().sum()
        totals: dict[str, float] = dict(feeds.changed_total(self.plan))
        for name in self.supervised:
            totals[name] = max(feeds.supervised_total(self.plan, labelled[name]), 1e-9)
        shares = {
            f"{name}/accuracy" if len(self.supervised) > 1 else "accuracy": count
            * self.world_size
            / max(int(labelled[name].sum()) * len(self.plan), 1)
            for name, count in right.items()
        }
        return {name: loss * self.world_size / totals[name] for name, loss in losses.items()}, shares

    def _combined(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One loss from all, as loss.combine says."""
        how, weights = self.config.loss.combine, self.weights
        if how == "geometric":
            return geometric_mean(losses, weights)
        if how == "focused":
            return focused_geometric_mean(losses, weights, tuple(self.supervised))
        if how == "uncertainty":
            regressions = {name for name, task in self.supervised.items() if task.regression}
            regressions |= {name for name, task in self.tasks.items() if task.regression}
            return uncertainty(losses, weights, dict(self.model.learned.items()), regressions)
        if how == "dwa" and len(self.history) >= 2:
            before, last = ({name: row[f"train/{self._logged(name)}"] for name in losses} for row in self.history[-2:])
            dynamic = dynamic_weights(last, before)
            weights = {name: weights[name] * dynamic[name] for name in losses}
        return weighted_sum(losses, weights)

    def _combined_over_workers(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Differentiate the combination of the global losses; gives its value.

        DDP averages gradients, which is exact for a sum of means only. So the combination is differentiated at the
        global losses, and each local loss is weighted with that derivative.
        """
        local = torch.stack(list(losses.values()))
        whole = (self._averaged(local.detach())).requires_grad_()
        total = self._combined(dict(zip(losses, whole.unbind(), strict=True)))
        learned = list(self.model.learned.values())
        slopes, *own = torch.autograd.grad(total, [whole, *learned])
        surrogate = (slopes * local).sum()
        for parameter, slope in zip(learned, own, strict=True):
            surrogate = surrogate + slope * parameter
        surrogate.backward()
        return total.detach()

    def _surgery(self, losses: Mapping[str, Tensor], generator: Generator) -> Tensor:
        """Set the gradients as PCGrad does; gives the weighted sum of the losses."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        found = [
            torch.autograd.grad(self.weights[name] * loss, parameters, retain_graph=True, allow_unused=True)
            for name, loss in losses.items()
        ]
        owners = [sum(grads[k] is not None for grads in found) for k in range(len(parameters))]
        shared = [k for k, count in enumerate(owners) if count > 1]  # heads belong to one task and stay as they are
        if shared:
            flat = self._averaged(
                torch.stack(
                    [torch.cat([_or_zero(grads[k], parameters[k]).flatten() for k in shared]) for grads in found]
                )
            )
            orders = [torch.randperm(len(found), generator=generator).tolist() for _ in found]
            pieces = project_conflicting(flat, orders).split([parameters[k].numel() for k in shared])
            for k, piece in zip(shared, pieces, strict=True):
                parameters[k].grad = piece.view_as(parameters[k])
        for k, count in enumerate(owners):
            if count == 1:
                parameters[k].grad = self._averaged(next(grads[k] for grads in found if grads[k] is not None))
        return self._averaged(weighted_sum(losses, self.weights).detach())

    def _averaged(self, value: Tensor) -> Tensor:
        """The mean over the workers."""
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
            value = value / self.world_size
        return value

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
            names = (self._logged(name) for name in (*self.supervised, *self.tasks))
            bad = [name for name in names if not math.isfinite(self.sums.get(name, 0.0))]
            raise TrialDiverged(
                f"the loss became NaN or infinite in epoch {self.epoch} ({', '.join(bad) or 'sum'}): "
                "lower training.lr or the pretext weight, or set training.clip"
            )

    # Ends of epochs and of the trial --------------------------------------------------------------------------

    def _end_epoch(self, on_epoch: OnEpoch, started: float) -> bool:
        means = {f"train/{name}": total / self.batches.steps for name, total in self.sums.items()}
        trained = time.monotonic() - started + 1e-9
        row: dict[str, float] = {"epoch": self.epoch, **means}
        row |= {f"val/{name}": value for name, value in self._measure(self._predict(self.val), self.val).items()}
        if self.tasks and self.rank == 0:
            scores = evaluate.score_pretext(
                self.model,
                self.config.chains,
                self.val,
                len(self.splits.train),
                self.setup,
                self.norm,
                self.config.data.seed,
            )
            row |= {f"val/{name}": value for name, value in scores.items()}
            if self.epoch in {1, self.config.training.epochs // 2, self.config.training.epochs}:
                self._picture()
        self.seconds += time.monotonic() - started
        row |= {
            "lr": self.optimizer.param_groups[0]["lr"],
            "image_passes": self.passes,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.batches.steps * self.batches.batch_size * len(self.plan) / trained, 1),
        }
        value = self._value(row)
        if value > self.best:
            self.best, self.best_epoch = value, self.epoch
            if self.rank == 0:
                weights = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
                with replacing(self.folder.path / "best.safetensors") as new:
                    save_file(weights, new)
        self.history.append(row)
        if self.rank == 0:
            self.folder.append_history(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
        self._checkpoint()
        self.model.train()
        return self._agree(on_epoch(row)) and self.epoch <= self.config.training.epochs

    def _value(self, row: Mapping[str, float]) -> float:
        """What selects the weights, higher is better: a metric of val, or, without one, the epoch."""
        metric = self.config.selects_by
        if not metric:
            return row["epoch"]
        return row[metric] if self.config.metrics[metric.removeprefix("val/")] == "max" else -row[metric]

    def _predict(self, images: EvaluationImages) -> Tensor:
        if self.world_size > 1:
            for buffer in self.model.buffers():  # each worker's batch statistics differ; those of rank 0 are saved
                dist.broadcast(buffer, 0)
        if not self.supervised:
            return torch.empty(len(images.indices), 0)
        return evaluate.predict(self.model.inference, images, self.setup, self.norm, self.rank, self.world_size)

    def _measure(self, outputs: Tensor, images: EvaluationImages) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, task in self.supervised.items():
            targets = task.targets(images.indices)
            there = task.present(targets)
            if not there.any():  # one of several tasks may have no labels in a split
                continue
            values = task.metrics(outputs[:, self.columns[name]][there], targets[there])
            found |= named(name, values, len(self.supervised) == 1)
        return found

    def _picture(self) -> None:
        """Whole, changed and rebuilt faces of val, the same ones at every epoch."""
        rows = np.linspace(0, len(self.val.indices) - 1, min(8, len(self.val.indices))).round().astype(int)
        whole = self.setup.images(self.val.take(rows), *self.norm)
        mean, std = self.norm
        for chain in self.config.chains:
            with torch.inference_mode():
                found, changed = evaluate.attempts(self.model, chain, whole, self.setup, Generator().manual_seed(0))
                for name, attempt in found.items():
                    shown = {
                        "true": attempt.before,
                        "changed": changed,
                        "rebuilt": self.tasks[name].rebuilt(attempt.output, attempt.before, attempt.draw),
                    }
                    pictures.save_rows(
                        self.folder.path / "pictures" / f"{name}-epoch-{self.epoch:04d}.png",
                        [(label, images * std + mean) for label, images in shown.items()],
                    )

    def _finish(self, status: Any, reason: str, evaluate_test: bool) -> TrialResult:
        if status == "finished" and not self.history:
            self.history = self.folder.history()
            self._restore()
        metrics: dict[str, float] = {}
        confusion: dict[str, list[list[int]]] = {}
        if self.best_epoch:
            best = next(row for row in self.history if row["epoch"] == self.best_epoch)
            metrics = {f"best/{name}": value for name, value in best.items() if name.startswith("val/")}
        if status == "finished" and self.supervised:
            measured, confusion = self._measure_best(evaluate_test)
            metrics |= measured
        result = TrialResult(
            trial_id=self.id,
            status=status,
            reason=reason,
            epochs=self.epoch - 1,
            best_epoch=self.best_epoch,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            image_passes=self.passes,
            seconds=round(self.seconds, 3),
            tags=provenance(self.setup, self.threads, self.world_size),
            classes=[name for task in list(self.supervised.values())[:1] for name in task.classes],
            task_classes={name: list(task.classes) for name, task in self.supervised.items()},
            confusion=confusion,
        )
        if self.rank == 0:
            self.folder.write_result(result)
        self.log(f"{status} {reason}".strip())
        return result

    def _measure_best(self, evaluate_test: bool) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
        """Measure the best weights: metrics of test, and a confusion matrix for each split and task with classes.

        Writes each image's outputs and the matrices' pictures into the trial's folder.
        """
        self._load_best()
        held = {"val": self.val}
        if evaluate_test:
            held["test"] = EvaluationImages(self.config, self.pack, self.splits.test)
        metrics: dict[str, float] = {}
        confusion: dict[str, list[list[int]]] = {}
        predictions: dict[str, np.ndarray] = {}
        alone = len(self.supervised) == 1
        for part, images in held.items():
            outputs = self._predict(images)
            if part == "test":
                metrics |= {f"test/{key}": value for key, value in self._measure(outputs, images).items()}
            predictions[f"{part}_index"] = images.indices
            for name, task in self.supervised.items():
                own, targets = outputs[:, self.columns[name]], task.targets(images.indices)
                prefix = part if alone else f"{part}_{name}"
                predictions |= {
                    f"{prefix}_{key}": value.numpy() for key, value in task.predictions(own, targets).items()
                }
                there = task.present(targets)
                if not task.classes or not there.any():
                    continue
                label = part if alone else f"{part}/{name}"
                confusion[label] = confusion_matrix(own[there], targets[there], task.classes)
                if self.rank == 0:
                    pictures.save_confusion(
                        self.folder.path / "pictures" / f"confusion-{label.replace('/', '-')}.png",
                        confusion[label],
                        task.classes,
                    )
        if self.rank == 0:
            self.folder.write_predictions(predictions)
        return metrics, confusion

    def _load_best(self) -> None:
        path = self.folder.path / "best.safetensors"
        try:
            self.model.load_state_dict(load_file(path, device=str(self.setup.device)))
        except (OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"can't load {path}: delete this trial's folder and run again") from error

    def log(self, text: str) -> None:
        if self.rank == 0:
            self.folder.log(text)


def _or_zero(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient
