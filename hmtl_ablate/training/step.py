"""One training step: losses, their combination over tasks and workers, and the optimiser's step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hmtl_ablate.config import SUMS
from hmtl_ablate.loss import (
    dynamic_weights,
    focused_geometric_mean,
    geometric_mean,
    geometric_over_views,
    project_conflicting,
    uncertainty,
    weighted_sum,
)
from hmtl_ablate.to_device import to_device
from hmtl_ablate.training import feeds
from hmtl_ablate.training.batches import Batch, seed_of
from hmtl_ablate.training.gradients import finite, measure_gradients, norm_now, untouched
from hmtl_ablate.training.optim import learning_rate
from hmtl_ablate.training.parts import Parts

Terms = tuple[dict[str, Tensor], dict[str, Tensor]]
"""The loss of each task, and the accuracy of each classification: scalars."""


class TrainingStep:
    """Trains the parts' model on one batch at a time."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.pieces = 1
        """Pieces that this worker's share of a batch is trained in, one after the other. The gradient is that of the
        whole batch, except for batch norm, whose statistics are of a piece, and dropout, which draws other numbers."""
        self._lone = parts.config.lone_loss
        self._norm = torch.zeros(())
        """Of the lone loss's gradient on the backbone, in the epoch's last step."""
        # pcgrad needs each task's gradient by itself, which DDP does not give: the step averages them.
        distributed = parts.workers.count > 1 and parts.config.loss.combine != "pcgrad"
        self.model: Any = _over_workers(parts.model) if distributed else parts.model

    def __call__(self, batch: Batch, history: Sequence[Mapping[str, float]]) -> dict[str, Tensor]:
        """One step; returns the terms of the epoch's means, as scalars on the device, without waiting for it. With
        several workers, the mean of a term over them is that of the global batch.

        history: rows of the epochs before this one, from which dynamic weight averaging computes its weights.
        """
        parts, config = self.parts, self.parts.config
        seed = seed_of(config.seed, batch.epoch, batch.step)
        rate = learning_rate(config.training, batch.epoch - 1 + (batch.step + 1) / parts.batches.steps)
        for group in parts.optimizer.param_groups:
            group["lr"] = rate

        parts.optimizer.zero_grad(set_to_none=True)
        total, losses, accuracies = self._differentiate(
            lambda piece: self._forward(self.model, batch, seed, piece),
            history,
            Generator().manual_seed(seed_of(seed, 1)),
        )
        if self._lone and batch.step == parts.batches.steps - 1:
            self._norm = norm_now(parts.model.inference.backbone)
        if config.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(parts.model.parameters(), config.training.clip)
        parts.optimizer.step()
        return {"loss": total, **accuracies, **{parts.logged(name): value.detach() for name, value in losses.items()}}

    def gradients(self, batch: Batch) -> dict[str, float]:
        """Gradients of the losses on the backbone, for an epoch's last batch, which the model was trained on just now;
        training continues with the same bits as without. Names and meaning: hmtl_ablate/training/gradients.py."""
        parts = self.parts
        if self._lone:
            return finite({f"train/gradient/{parts.logged(self._lone)}": self._norm})
        seed = seed_of(parts.config.seed, batch.epoch, batch.step)

        def weighted(piece: int) -> dict[str, Tensor]:
            losses, _ = self._forward(parts.model, batch, seed, piece)
            return {name: parts.weights[name] * loss for name, loss in self._combined(losses).items()}

        with untouched(parts.model, parts.setup.device):
            return measure_gradients(
                map(weighted, range(self.pieces)),
                tuple(parts.supervised),
                parts.model.inference.backbone,
                parts.workers.mean,
                parts.logged,
            )

    def _forward(self, model: Any, batch: Batch, seed: int, piece: int) -> Terms:
        """Losses and accuracies of one of the pieces of this worker's share of the batch."""
        rank = self.parts.workers.rank
        # For dropout: a resumed epoch draws what an uninterrupted one would, and a piece the same each time.
        torch.manual_seed(seed + rank if self.pieces == 1 else seed_of(seed + rank, piece))
        rows = slice(piece, None, self.pieces)
        return self._losses(model, self._inputs(batch, seed, rows), self._targets(batch, rows), batch.labelled)

    def _inputs(self, batch: Batch, seed: int, rows: slice) -> list[feeds.ModelInput]:
        """The model's inputs of some of this worker's rows of the batch."""
        parts, stored = self.parts, batch.views[:, rows]
        views = parts.setup.images(stored.flatten(0, 1), *parts.norm).unflatten(0, stored.shape[:2])
        generator = Generator().manual_seed(seed)
        whole = parts.batches.batch_size
        redrawn = {
            name: Generator().manual_seed(seed_of(seed, 2, number))
            for number, (name, options) in enumerate(parts.config.pretext.items())
            if options.answers == "random"
        }
        return feeds.build_inputs(parts.plan, parts.pretext, views, parts.rows[rows], whole, generator, redrawn)

    def _targets(self, batch: Batch, rows: slice) -> dict[str, Tensor]:
        return {name: to_device(values[:, rows], self.parts.setup.device) for name, values in batch.targets.items()}

    def _losses(
        self,
        model: Any,
        inputs: Sequence[feeds.ModelInput],
        targets: Mapping[str, Tensor],
        labelled: Mapping[str, NDArray[Any]],
    ) -> Terms:
        """The loss of each supervised and pretext task, and the accuracy of each classification.

        targets: task → [V, b, …]; labelled: task → bool of the global batch. Each loss is scaled so that its mean over
        the workers is the mean over the global batch; a missing label counts in neither.
        """
        parts = self.parts
        with parts.setup.autocast():
            results = model(
                [(group.images, {name: query.rows for name, query in group.queries.items()}) for group in inputs]
            )
        zero = torch.zeros((), device=parts.setup.device)
        losses: dict[str, Tensor] = dict.fromkeys(parts.pretext, zero)
        by_view = {name: [zero] * len(parts.plan) for name in parts.supervised}
        correct: dict[str, Tensor] = {}
        for group, (outputs, answers) in zip(inputs, results, strict=True):
            for name, task in parts.supervised.items():
                own = outputs[:, parts.columns[name]].float()
                own_targets = torch.cat([targets[name][view] for view in group.views])
                errors = (task.loss(own, own_targets) * group.weights).unflatten(0, (len(group.views), -1)).sum(dim=1)
                for view, error in zip(group.views, errors, strict=True):
                    by_view[name][view] = error
                if task.classes:
                    correct[name] = (
                        correct.get(name, zero) + (own.detach().argmax(dim=1) == task.class_targets(own_targets)).sum()
                    )
            for name, query in group.queries.items():
                errors = answers[name]  # of no rows: their sum is 0, with a gradient of 0 for each weight
                if name not in parts.config.combined:
                    errors = errors.detach()
                if len(query.rows):
                    with parts.setup.autocast():  # a perceptual network runs in the step's own precision
                        errors = parts.pretext[name].loss(errors.float(), query.before, query.draw)
                losses[name] = losses[name] + errors.float().sum()
        changed = feeds.changed_total(parts.plan)
        losses = {name: loss * parts.workers.count / changed[name] for name, loss in losses.items()}
        supervised = {name: self._over_views(torch.stack(by_view[name]), labelled[name]) for name in parts.supervised}
        accuracies = {
            f"{name}/accuracy" if len(parts.supervised) > 1 else "accuracy": count
            * parts.workers.count
            / max(int(labelled[name].sum()) * len(parts.plan), 1)
            for name, count in correct.items()
        }
        return supervised | losses, accuracies

    def _over_views(self, sums: Tensor, labelled: NDArray[Any]) -> Tensor:
        """A supervised task's loss from its weighted sums over this worker's rows of each stream, [V]."""
        parts = self.parts
        weights = [feeds.supervised_total([stream], labelled) for stream in parts.plan]
        if parts.config.loss.views == "mean" or not any(weights):
            return sums.sum() * parts.workers.count / max(sum(weights), 1e-9)
        means = torch.stack([one / max(weight, 1e-9) for one, weight in zip(sums, weights, strict=True)])
        means = means * parts.workers.count
        return geometric_over_views(means, parts.workers.mean(means.detach()), weights)

    def _differentiate(
        self, forward: Callable[[int], Terms], history: Sequence[Mapping[str, float]], generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Set the gradients of the combined loss; returns its value, each loss and each accuracy.

        forward: piece → its losses and accuracies; generator: of PCGrad's orders.
        """
        how = self.parts.config.loss.combine
        if how == "pcgrad":
            return self._project(forward, generator)
        # The mean over the workers of a sum's gradients, which DDP computes, is the gradient of the global sum. So no
        # worker waits for the others' losses between its forward and its backward pass.
        if self.pieces > 1 or (self.parts.workers.count > 1 and how not in SUMS):
            return self._combine_in_parts(forward, history)
        losses, accuracies = forward(0)
        loss = self._combine(self._combined(losses), history)
        loss.backward()
        return loss.detach(), losses, accuracies

    def _combined(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The losses that are trained; those with ignored answers are logged alone."""
        return {name: loss for name, loss in losses.items() if name in self.parts.config.combined}

    def _combine(self, losses: Mapping[str, Tensor], history: Sequence[Mapping[str, float]]) -> Tensor:
        """One loss from all, as loss.combine says."""
        parts = self.parts
        how, weights = parts.config.loss.combine, parts.weights
        if how == "geometric":
            return geometric_mean(losses, weights)
        if how == "focused":
            return focused_geometric_mean(losses, weights, tuple(parts.supervised))
        if how == "uncertainty":
            regressions = {name for name, task in parts.supervised.items() if task.regression}
            regressions |= {name for name, task in parts.pretext.items() if task.regression}
            return uncertainty(losses, weights, dict(parts.model.learned.items()), regressions)
        if how == "dwa" and len(history) >= 2:
            before, last = ({name: row[f"train/{parts.logged(name)}"] for name in losses} for row in history[-2:])
            dynamic = dynamic_weights(last, before)
            weights = {name: weights[name] * dynamic[name] for name in losses}
        return weighted_sum(losses, weights)

    def _combine_in_parts(
        self, forward: Callable[[int], Terms], history: Sequence[Mapping[str, float]]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Differentiate the combination of the global losses, which workers and pieces know a part of each.

        Sums of gradients, over pieces, and their means, which DDP computes over workers, are exact for a sum of means
        only. So the combination is differentiated at the global losses, and each local loss is weighted with that
        derivative. Several pieces are computed once to know the global losses, and again to differentiate them.
        """
        first = None
        if self.pieces == 1:
            first = forward(0)
            local = first[0]
        else:
            with torch.no_grad():
                local = _added(forward(piece)[0] for piece in range(self.pieces))
        local = self._combined(local)
        whole = self.parts.workers.mean(torch.stack(list(local.values())).detach()).requires_grad_()
        total = self._combine(dict(zip(local, whole.unbind(), strict=True)), history)
        learned = list(self.parts.model.learned.values())
        slopes, *own = torch.autograd.grad(total, [whole, *learned])
        losses: dict[str, Tensor] = {}
        accuracies: dict[str, Tensor] = {}
        for piece in range(self.pieces):
            last = piece == self.pieces - 1
            with nullcontext() if last or self.model is self.parts.model else self.model.no_sync():
                values, correct = first or forward(piece)
                surrogate = (slopes * torch.stack(list(self._combined(values).values()))).sum()
                for parameter, slope in zip(learned, own, strict=True) if last else ():
                    surrogate = surrogate + slope * parameter
                surrogate.backward()
            losses = _added([losses, {name: value.detach() for name, value in values.items()}])
            accuracies = _added([accuracies, correct])
        return total.detach(), losses, accuracies

    def _project(
        self, forward: Callable[[int], Terms], generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Set the gradients as PCGrad does; returns the weighted sum of the losses, each loss and each accuracy."""
        parts, mean = self.parts, self.parts.workers.mean
        parameters = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
        losses: dict[str, Tensor] = {}
        accuracies: dict[str, Tensor] = {}
        found: list[tuple[Tensor | None, ...]] = []
        for piece in range(self.pieces):
            values, correct = forward(piece)
            grads: list[tuple[Tensor | None, ...]] = [
                torch.autograd.grad(parts.weights[name] * loss, parameters, retain_graph=True, allow_unused=True)
                for name, loss in self._combined(values).items()
            ]
            found = [_sum(*pair) for pair in zip(found, grads, strict=True)] if found else grads
            losses = _added([losses, {name: value.detach() for name, value in values.items()}])
            accuracies = _added([accuracies, correct])
        owners = [sum(grads[k] is not None for grads in found) for k in range(len(parameters))]
        shared = [k for k, count in enumerate(owners) if count > 1]  # heads belong to one task and stay as they are
        if shared:
            flat = mean(
                torch.stack(
                    [torch.cat([_or_zero(grads[k], parameters[k]).flatten() for k in shared]) for grads in found]
                )
            )
            orders = [torch.randperm(len(found), generator=generator).tolist() for _ in found]
            pieces = project_conflicting(flat, orders).split([parameters[k].numel() for k in shared])
            for k, piece_of in zip(shared, pieces, strict=True):
                parameters[k].grad = piece_of.view_as(parameters[k])
        for k, count in enumerate(owners):
            if count == 1:
                parameters[k].grad = mean(next(own for grads in found if (own := grads[k]) is not None))
        return mean(weighted_sum(self._combined(losses), parts.weights)), losses, accuracies


def _over_workers(model: nn.Module) -> DistributedDataParallel:
    """The model with gradients averaged over the workers.

    Not with static_graph: nothing is searched for in the graph anyway (find_unused_parameters is off, and every
    parameter has a gradient, of 0 where a share has no changed image).
    """
    # Gradients are views of what is sent: no copies of all of them before and after.
    distributed = DistributedDataParallel(model, gradient_as_bucket_view=True)
    # By default worker 0's buffers are sent before every forward pass. `measure.predict` sends them before they are
    # used. (Set here, not as an argument: PyTorch 2.15 renamed that, and this name works in all versions.)
    distributed.broadcast_buffers = not only_statistics(model)
    return distributed


def only_statistics(model: nn.Module) -> bool:
    """Whether all of a model's saved buffers are running statistics of normalisation layers.

    Training writes these and never reads them. Another buffer, such as a memory bank of a registered task, may be read.
    One that is not saved is a constant: a resumed trial has it anew.
    """
    saved = model.state_dict().keys()
    statistics = {
        id(buffer)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for buffer in module.buffers(recurse=False)
    }
    return all(id(buffer) in statistics for name, buffer in model.named_buffers() if name in saved)


def _added(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of each entry."""
    total: dict[str, Tensor] = {}
    for part in parts:
        total = {name: total[name] + value if name in total else value for name, value in part.items()} or total
    return total


def _sum(ones: Sequence[Tensor | None], others: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """The sums of two tuples of gradients, None where there is none."""
    return tuple(b if a is None else a if b is None else a + b for a, b in zip(ones, others, strict=True))


def _or_zero(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient
