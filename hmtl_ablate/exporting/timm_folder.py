"""A network as a folder that timm loads: config.json, model.safetensors and a model card.

The weights have timm's names, the supervised head as timm's classifier, so that
`timm.create_model("local-dir:FOLDER", pretrained=True)` gives the whole network. Where a network of timm has no
classifier of this form, model.safetensors is the network without classifier, and head.safetensors the head: `weight`
[K, P] and `bias` [K] of a linear layer on its pooled features.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from hmtl_ablate.backbone import build_network
from hmtl_ablate.errors import CheckpointError, first_line
from hmtl_ablate.exporting.card import card
from hmtl_ablate.exporting.description import KEY, LONGEST, Description, checked
from hmtl_ablate.exporting.network import LARGEST, filled
from hmtl_ablate.model import InferenceModel
from hmtl_ablate.storage.files import write_atomically
from hmtl_ablate.training.checkpoint import load_tensors, save_tensors

CONFIG, WEIGHTS, HEAD, CARD = "config.json", "model.safetensors", "head.safetensors", "README.md"


def is_export(folder: Path) -> bool:
    """Whether the folder is one that `write` made."""
    try:
        content = json.loads(_limited(folder / CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and KEY in content


def write(network: InferenceModel, description: Description, folder: Path) -> None:
    """Make a new folder with the network's files."""
    folder.mkdir()
    state = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    found, arguments, classifier = timm_network(network, description)
    head = {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
    weights = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    if classifier is None:
        save_tensors(folder / HEAD, head, {"format": "pt"})
    else:
        weights |= {f"{classifier}.{name}": value for name, value in head.items()}
    save_tensors(folder / WEIGHTS, weights, {"format": "pt"})
    write_atomically(folder / CARD, card(description, classifier is None).encode())
    content = {
        "architecture": description.backbone,
        "num_classes": 0 if classifier is None else description.width,
        "label_names": _labels(description),
        "model_args": arguments,
        "pretrained_cfg": _settings(found, description),
        KEY: {**description.model_dump(mode="json"), "classifier": classifier},
    }
    write_atomically(folder / CONFIG, json.dumps(content, indent=1).encode())


def read(folder: Path) -> tuple[Description, nn.Module]:
    """The network of a folder that `write` made. Raises CheckpointError when it is damaged, or anything else."""
    path = folder / CONFIG
    try:
        content = json.loads(_limited(path))
        described = dict(content[KEY])
        classifier = described.pop("classifier")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"can't load {path}: {first_line(error)}; export the trial again") from error
    description, config = checked(described, path)
    state = _tensors(folder / WEIGHTS)
    if classifier is None:
        head = _tensors(folder / HEAD)
    else:
        prefix = f"{classifier}."
        head = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    own = {f"backbone.{name}": value for name, value in state.items()}
    own |= {f"head.{name}": value for name, value in head.items()}
    return description, filled(config, description.width, own, folder / WEIGHTS)


def by_timm(folder: Path) -> nn.Module:
    """The network of a folder that this process wrote, as timm loads it; as `read` does where its head is separate."""
    if (folder / HEAD).exists():
        return read(folder)[1]
    with torch.random.fork_rng(devices=()):
        network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return network.eval()


def timm_network(network: InferenceModel, description: Description) -> tuple[nn.Module, dict[str, Any], str | None]:
    """timm's network with our weights, the arguments that built it, and the name of its classifier, which is our head.

    Without such a classifier the name is None, and the network has none: where timm's is no linear layer on the pooled
    features, as in a distilled transformer with two, or where outputs differ.
    """
    with torch.random.fork_rng(devices=()):
        found, arguments = build_network(description.backbone, description.size, description.width)
        getter: Any = getattr(found, "get_classifier", None)
        classifier = getter() if getter else None
        name = next((name for name, module in found.named_modules() if module is classifier), None)
        if name and isinstance(classifier, nn.Linear):
            state = network.backbone.state_dict()
            state |= {f"{name}.{key}": value for key, value in network.head.state_dict().items()}
            images = torch.rand(2, 3, description.size, description.size)
            try:
                found.load_state_dict(state)
                with torch.no_grad():
                    equal = torch.allclose(found.eval()(images), network.eval()(images), rtol=1e-4, atol=1e-5)
            except (RuntimeError, TypeError):
                equal = False
            if equal:
                return found, arguments, name
        found, arguments = build_network(description.backbone, description.size, 0)
        found.load_state_dict(network.backbone.state_dict())
        return found, arguments, None


def _settings(network: Any, description: Description) -> dict[str, Any]:
    """timm's pretrained_cfg: the preprocessing as far as timm has words for it."""
    known = getattr(network, "pretrained_cfg", None) or {}
    return {
        "tag": description.trial_id,
        "input_size": [3, description.size, description.size],
        "fixed_input_size": bool(known.get("fixed_input_size", False)),
        "interpolation": "bilinear",
        "crop_pct": description.crop,
        "crop_mode": "center",
        "mean": list(description.mean),
        "std": list(description.std),
        "license": description.data.licence or None,
        "first_conv": known.get("first_conv"),
        "classifier": known.get("classifier"),
    }


def _labels(description: Description) -> list[str]:
    """A name for each output."""
    several = len(description.tasks) > 1
    names = []
    for task, outputs in description.tasks.items():
        own = outputs.classes or (outputs.values if len(outputs.values) == outputs.outputs else ())
        numbered = own or tuple(f"{task} {number}" for number in range(outputs.outputs))
        names += [f"{task}: {name}" if several and own else name for name in numbered]
    return names


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.exists() and path.stat().st_size > LARGEST:
        raise CheckpointError(f"{path}: larger than {LARGEST >> 30} GiB")
    return load_tensors(path)


def _limited(path: Path) -> bytes:
    if path.stat().st_size > LONGEST:
        raise ValueError(f"larger than {LONGEST} bytes")
    return path.read_bytes()
