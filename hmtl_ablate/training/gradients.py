"""Gradients of the losses on the backbone, measured once an epoch: which loss trains it, and do they agree?

Logged as `train/gradient/NAME`, the norm of the gradient of weight × loss over the backbone's parameters, for each
supervised and pretext task (a lone supervised task is `supervised`), and `train/cosine/NAME`, the cosine (−1 … 1) of
the gradient of pretext task NAME and that of all supervised losses together: below 0 they conflict (Du et al. 2018,
*Adapting Auxiliary Losses Using Gradient Similarity*).

A measurement costs a forward pass, and a backward pass for each loss, of which there are at most `MOST` with the
built-in pretext tasks: at most three training steps. It is done after the epoch's last step, on that step's batch. A
loss that is alone costs nothing: its gradient is the one that this step itself has had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MOST = 4
"""Backward passes of a measurement: with a forward pass half as dear as a backward one, the cost of three steps."""


@contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore the model's buffers (batch statistics) and torch's random state afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def measure_gradients(
    pieces: Iterable[Mapping[str, Tensor]],
    supervised: Sequence[str],
    backbone: nn.Module,
    mean: Callable[[Tensor], Tensor],
    logged: Callable[[str], str],
) -> dict[str, float]:
    """Norms and cosines by their logged names; a value that is not finite, or has no gradient, is left out.

    pieces: of a batch, whose losses and gradients add up; for each, supervised or pretext task → weight × loss, scalars
    of one graph; supervised: the supervised tasks among them; mean: over the workers; logged: task → its name in the
    history. Gradients (`.grad`) stay as they are. Of more than `MOST` losses, the supervised ones are measured
    together, as `supervised`.
    """
    parameters = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    vectors: dict[str, Tensor] = {}
    own: set[str] = set()
    for losses in pieces:
        groups = {logged(name): [loss] for name, loss in losses.items() if name in supervised}
        if len(losses) > MOST and supervised:
            groups = {"supervised": [losses[name] for name in supervised]}
        own = set(groups)
        groups |= {logged(name): [loss] for name, loss in losses.items() if name not in supervised}
        for name, some in groups.items():
            found = _gradient(torch.stack(some).sum(), parameters, keep=name != list(groups)[-1])
            vectors[name] = vectors[name] + found if name in vectors else found
    vectors = {name: mean(vector) for name, vector in vectors.items()}
    return _described(vectors, own)


def _described(vectors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, float]:
    """Norm of each gradient, and the cosine of each that is not among `own`, the supervised ones, with their sum."""
    found = {f"train/gradient/{name}": vector.norm() for name, vector in vectors.items()}
    if own:
        target = torch.stack([vectors[name] for name in own]).sum(dim=0)
        found |= {
            f"train/cosine/{name}": torch.dot(vector, target) / (vector.norm() * target.norm())
            for name, vector in vectors.items()
            if name not in own
        }
    return finite(found)


def norm_now(backbone: nn.Module) -> Tensor:
    """The norm of the gradients that the backbone's parameters have at the moment."""
    return torch.nn.utils.get_total_norm([one.grad for one in backbone.parameters() if one.grad is not None])


def finite(found: Mapping[str, Tensor]) -> dict[str, float]:
    """The values of scalars, without those that are not finite; waits for the device once."""
    values = torch.stack(list(found.values())).tolist()
    return {name: value for name, value in zip(found, values, strict=True) if math.isfinite(value)}


def _gradient(loss: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> Tensor:
    """The gradient of a scalar on all parameters, as one vector; 0 where it does not depend on them."""
    found = torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)
    pieces = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(one) if grad is None else grad).flatten() for grad, one in pieces])
