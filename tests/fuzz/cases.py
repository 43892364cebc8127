"""Input that is mostly valid but odd: study files, packs, label files, images and folders of trials.

A case is a function of a random generator and an empty folder: it writes its input there and returns the command lines
to try on it, with `{store}` for the folder of the store.
"""

from __future__ import annotations

import atexit
import copy
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import cv2
import numpy as np
from pydantic.fields import FieldInfo

from hmtl_ablate.config import PRETEXT_OPTIONS, TrialConfig, metric_names
from hmtl_ablate.errors import StudyError
from hmtl_ablate.study import load_study
from hmtl_ablate.study.declaration import objectives
from hmtl_ablate.study.mapping import node_of, yaml_of
from hmtl_ablate.study.options import option_fields
from hmtl_ablate.study.pruners import PRUNERS
from hmtl_ablate.study.samplers import SAMPLERS
from hmtl_ablate.supervised import SUPERVISED_TASKS
from hmtl_ablate.training.folder import TrialFolder, TrialResult
from tests.data.conftest import LAYOUTS  # type: ignore[import-not-found]

Commands = list[list[str]]
Case = Callable[[Random, Path], Commands]

NAMES = [
    "SL",
    "名前",
    "SL + puzzling → x",
    "-rf",
    "../up",
    "a/b",
    "%s %d {0}",
    "null",
    "1",
    "x" * 80,
    "\u202esl",
    "e\u0301",
    "[bold]x[/]",
    " SL ",
    "SL, 2 views",
    "🙂",
    "best of search",
    "'\"",
    "=1+1",
    "a: b",
]
NETWORKS = [
    "test_resnet",
    "test_vit",
    "resnet10t",
    "tf_efficientnet_lite0",
    "test_vit.r160_in1k",
    "vgg16",
    "no_such_net",
]
TEXTS = [
    "",
    "x",
    "trial:SL",
    "trial:0123456789abcdef",
    "file:nowhere.pth",
    "imagenet",
    "package",
    "puzzling",
    *NETWORKS,
]
DAMAGE = [
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\r\n",
    b"NaN",
    b"1e999",
    b"-1",
    b"{",
    b"}",
    b'"',
    b",",
    b"\xed\xa0\x80",
    b"9" * 400,
]


# --- values of options -----------------------------------------------------------------------------------------------


def odd_value(rng: Random, key: str, field: FieldInfo) -> Any:
    """A value that the option takes, often at an end of its range; now and then one that it does not take."""
    if rng.random() < 0.04:
        return rng.choice([None, True, "3", [], {}, -1, float("nan"), 1e308, 10**30, "", [[1, 2]]])
    if key == "model.backbone" or key.endswith(".perceptual"):
        return rng.choice(NETWORKS)
    if key == "data.name":
        return rng.choice(["rendered", "folder", "csv", "ferplus", "no_such_set"])
    if key == "task":
        return rng.choice([*SUPERVISED_TASKS, [*SUPERVISED_TASKS], ["emotion", "gender"]])
    return _of(rng, field.annotation, [*field.metadata])


def _of(rng: Random, kind: Any, limits: list[Any]) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if hasattr(kind, "__metadata__"):  # Annotated
        found = [one for outer in kind.__metadata__ for one in getattr(outer, "metadata", [outer])]
        return _of(rng, inner[0], [*limits, *found])
    if origin is Literal:
        return rng.choice(inner)
    if origin in (Union, UnionType):
        return _of(rng, rng.choice(inner), limits)
    if kind is type(None):
        return None
    if kind is bool:
        return rng.random() < 0.5
    if kind in (int, float):
        return _number(rng, kind, limits)
    if kind is str:
        return rng.choice(TEXTS)
    if origin is tuple:
        count = rng.randint(1, 3) if inner[-1] is Ellipsis else len(inner)
        return [_of(rng, inner[0 if inner[-1] is Ellipsis else number], []) for number in range(count)]
    return {}


def _number(rng: Random, kind: type, limits: list[Any]) -> int | float:
    found = {name: getattr(one, name) for one in limits for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}
    low, high = found.get("ge", found.get("gt", 0)), found.get("le", found.get("lt", 4))
    if kind is int:
        return rng.choice([low, high, low + 1, rng.randint(low, min(high, low + 100)), 2 * low or 1])
    return rng.choice([low, high, low + 1e-12, high - 1e-9, low + (high - low) * rng.random(), 0.5, 1, 5e-324])


# --- study files -----------------------------------------------------------------------------------------------------


def changes(rng: Random, most: int) -> dict[str, Any]:
    """A change of a TrialConfig, by dotted keys or nested maps."""
    fields = option_fields()
    chosen = rng.sample(sorted(fields), rng.randint(0, most))
    tasks = {key.split(".")[1] for key in chosen if key.startswith("pretext.")}
    flat = {key: odd_value(rng, key, fields[key]) for key in chosen}
    if rng.random() < 0.5:
        return {"pretext": {task: {} for task in sorted(tasks)}, **flat} if tasks else flat
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        holder = nested
        for part in path:
            holder = holder.setdefault(part, {})
        holder[last] = value
    return nested


def search(rng: Random) -> dict[str, Any]:
    fields = option_fields()
    task = rng.choice(sorted(PRETEXT_OPTIONS))
    space: dict[str, Any] = {}
    for key in rng.sample(
        [key for key in fields if key.partition(".")[0] != "pretext" or task in key], rng.randint(1, 4)
    ):
        kind = rng.choice(["choice", "choice", "uniform", "loguniform", "int"])
        values = [odd_value(rng, key, fields[key]) for _ in range(rng.randint(1, 3) if kind == "choice" else 2)]
        space[key] = {kind: values}
        if kind == "int" and rng.random() < 0.5:
            space[key]["step"] = rng.choice([1, 2, 1000])
        if len(space) > 1 and rng.random() < 0.2:
            other = rng.choice(list(space))
            space[key]["when"] = {other: rng.choice([1, "siamese", [1, 2]])}
    found: dict[str, Any] = {
        "base": {"pretext": {task: {}}},
        "space": space,
        "sampler": rng.choice(sorted(SAMPLERS)),
        "pruner": rng.choice([*sorted(PRUNERS), {"name": "patient", "wraps": "hyperband"}, None]),
        "trials": rng.choice([1, 3, 1_000_000]),
        "objective": {rng.choice(objectives()): rng.choice(["max", "min"])},
        "confirm": rng.random() < 0.5,
    }
    return {key: value for key, value in found.items() if key in ("space", "trials", "base") or rng.random() < 0.5}


def study(rng: Random) -> dict[str, Any]:
    """A study that grows by what the reader accepts; in one of five, a mistake is left in."""
    found: dict[str, Any] = {
        "name": rng.choice(["s", "S-1_x", "a" * 64, "0"]),
        "base": {},
        "variants": {
            name: {} for name in rng.sample([name for name in NAMES if name.isprintable()], rng.randint(1, 4))
        },
    }
    found["variants"].pop("best of search", None)
    found["variants"].setdefault("SL", None)
    mistakes = int(rng.random() < 0.2)
    for _ in range(rng.randint(3, 9)):
        tried = copy.deepcopy(found)
        _grow(rng, tried)
        try:
            load_study(tried)
        except StudyError:
            if not mistakes:
                continue
            mistakes -= 1
        found = tried
    return found


def _grow(rng: Random, found: dict[str, Any]) -> None:
    """Add one thing to a study."""
    first = next(iter(found["variants"]))
    sections: dict[str, Callable[[], Any]] = {
        "question": lambda: rng.choice([*NAMES, "", None, "a\nb"]),
        "seeds": lambda: rng.choice([[0], [2**31 - 1, 0], list(range(12)), [7, 8]]),
        "metric": lambda: f"{rng.choice(['test', 'best/val'])}/{rng.choice(metric_names())}",
        "resources": lambda: rng.choice([{"workers": 2}, {"gpus": 0.25}, {"cpus": 1024}, {"gpus": 64}, {}, None]),
        "stages": lambda: {"first": changes(rng, 2)},
        "evaluations": lambda: {rng.choice(NAMES): {"probe.kind": rng.choice(["linear", "knn", "direct"])}},
        "search": lambda: search(rng),
        "profiles": lambda: {"quick": None, "paper": {"base": changes(rng, 2), "seeds": [1]}},
    }
    choice = rng.random()
    if choice < 0.4:
        key = rng.choice(sorted(sections))
        found[key] = sections[key]()
    elif choice < 0.5 and "stages" in found:
        found["variants"][first] = {"model.weights": "trial:first"}
    elif choice < 0.7:
        found["base"] = {**found["base"], **changes(rng, 1)}
    else:
        name = rng.choice(list(found["variants"]))
        found["variants"][name] = {**(found["variants"][name] or {}), **changes(rng, 2)}


def styled(rng: Random, text: str) -> bytes:
    """The text as an editor, another system, or a slip may leave it."""
    raw = text.encode("utf-8", "surrogatepass")
    style = rng.random()
    if style < 0.1:
        return raw.replace(b"\n", b"\r\n")
    if style < 0.15:
        return b"\xef\xbb\xbf" + raw
    if style < 0.2:
        return b"# " + b"c" * 2000 + b"\n---\n" + raw + b"...\n"
    if style < 0.25:
        return damaged(rng, raw)
    return raw


def damaged(rng: Random, raw: bytes) -> bytes:
    """The bytes with up to three of them cut, doubled, swapped or replaced."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(raw) + 1)
        length = rng.choice([0, 1, 1, 4, 40])
        raw = rng.choice(
            [
                raw[:at] + rng.choice(DAMAGE) + raw[at + length :],
                raw[:at] + raw[at + length :],
                raw[:at] + raw[at : at + length] + raw[at:],
                raw[:at],
                raw[:at] + rng.randbytes(length) + raw[at + length :],
            ]
        )
    return raw


def study_file(rng: Random, folder: Path) -> Commands:
    raw = study(rng)
    try:
        text = yaml_of(node_of(raw))
    except Exception:  # what YAML of ours can't hold is written as JSON, which may be no YAML
        text = json.dumps(raw)
    (folder / "study.yaml").write_bytes(styled(rng, text))
    words = ["plan", str(folder / "study.yaml"), "--runs", "{store}"]
    fields = option_fields()
    if ("profiles" in raw and rng.random() < 0.5) or rng.random() < 0.02:
        words += ["--profile", rng.choice(["quick", "paper", "paper", "nowhere", ""])]
    if rng.random() < 0.15:
        key = rng.choice([*fields, "epochs", "search.trials", "resources.cpus", "seeds", "base.data.size"])
        value = odd_value(rng, key, fields[key]) if key in fields else rng.choice(["3", "[1]", "null", "x: y", "}{"])
        words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
    if rng.random() < 0.1:
        words += ["--data", rng.choice(["rendered", f"folder={folder}", f"csv={folder}/no", str(folder), "=", "x=y=z"])]
    if rng.random() < 0.1:
        words += [
            "--trials",
            rng.choice(["0", "5", "-1", "99999999999"]),
            "--seeds",
            rng.choice(["0,1", "1,1", "-1", ","]),
        ]
    return [words]


# --- data ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def templates() -> Path:
    """Every layout once, for this process."""
    root = Path(tempfile.mkdtemp(prefix="hmtl-fuzz-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name, layout in LAYOUTS.items():
        if name != "rendered":
            layout.write(root / name)
    return root


def _layout(rng: Random, folder: Path) -> tuple[str, list[Path]]:
    name = rng.choice([name for name in LAYOUTS if name != "rendered"])
    shutil.copytree(templates() / name, folder / "set")
    return LAYOUTS[name].name, sorted(path for path in (folder / "set").rglob("*") if path.is_file())


def _check(name: str, folder: Path) -> Commands:
    return [["data", "check", f"{name}={folder / 'set'}", "--size", "16"]]


def label_file(rng: Random, folder: Path) -> Commands:
    name, files = _layout(rng, folder)
    tables = [path for path in files if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp", ".tiff")] or files
    for path in rng.sample(tables, min(len(tables), rng.randint(1, 3))):
        path.write_bytes(damaged(rng, path.read_bytes()))
    return _check(name, folder)


def image(rng: Random, folder: Path) -> Commands:
    name, files = _layout(rng, folder)
    for path in rng.sample(files, min(len(files), rng.randint(1, 4))):
        _spoil(rng, path)
    if rng.random() < 0.3:
        os.rename(
            files[-1], files[-1].with_name(rng.choice(["ä.png", "x" * 200 + ".jpg", "-rf.png", "a\nb.png", ".png"]))
        )
    return _check(name, folder)


def _spoil(rng: Random, path: Path) -> None:
    """An image of another kind, a damaged one, or something else in its place."""
    shape = rng.choice([(1, 1), (1, 4000), (4000, 1), (64, 48), (2, 2), (640, 490)])
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(
        0, 256, (*shape, rng.choice([1, 3, 4])), dtype=np.uint8
    )
    choice = rng.randrange(8)
    if choice < 3:
        path.write_bytes(damaged(rng, path.read_bytes()))
    elif choice < 5:
        ending = rng.choice([".png", ".jpg", ".bmp", ".tiff", ".webp", ".pgm"])
        path.write_bytes(cv2.imencode(ending, pixels[..., :3] if ending != ".pgm" else pixels[..., 0])[1].tobytes())
    elif choice == 5:
        path.write_bytes(cv2.imencode(".png", pixels.astype(np.uint16) * 257)[1].tobytes())
    elif choice == 6:
        path.unlink()
        path.symlink_to(rng.choice(["nowhere", path.name, ".", "/etc/hostname"]))
    else:
        path.unlink()
        path.mkdir()


# --- packs and trials ------------------------------------------------------------------------------------------------


def damaged_json(rng: Random, path: Path) -> None:
    """A JSON file with one value anywhere replaced, or with damaged bytes."""
    if rng.random() < 0.4:
        path.write_bytes(damaged(rng, path.read_bytes()))
        return
    raw = json.loads(path.read_text())
    holder, key = raw, rng.choice(sorted(raw))
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.6:
        holder = holder[key]
        key = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice([None, -1, 0, 10**12, 1e308, "", "x", [], {}, True, [None], {"x": 1}, float("nan")])
    path.write_text(json.dumps(raw))


@lru_cache(maxsize=1)
def pack_template() -> Path:
    from hmtl_ablate.cli import main

    root = Path(tempfile.mkdtemp(prefix="hmtl-fuzz-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    assert (
        main(["data", "pack", f"folder={templates() / 'folder'}", "--size", "16", "--runs", str(root), "--quiet"]) == 0
    )
    (pack,) = (root / "packs").glob("folder-*")
    return pack


def manifest(rng: Random, folder: Path) -> Commands:
    """A pack whose manifest, or one of whose arrays, is damaged: as a dataset, and in a store that is planned on."""
    pack = folder / "packs" / pack_template().name
    shutil.copytree(pack_template(), pack)
    if rng.random() < 0.6:
        damaged_json(rng, pack / "manifest.json")
    else:
        path = rng.choice(sorted(path for path in pack.iterdir() if path.is_file()))
        path.write_bytes(damaged(rng, path.read_bytes()))
    (folder / "study.yaml").write_text(
        "name: s\nbase: {data: {name: folder, size: 16}}\nvariants: {SL: {}}\nseeds: [0]\n"
    )
    source = templates() / "folder"
    return [
        ["data", "pack", f"folder={pack}", "--size", "16", "--runs", "{store}"],
        ["plan", str(folder / "study.yaml"), "--runs", str(folder), "--data", f"folder={source}"],
    ]


def trial_folder(rng: Random, folder: Path) -> Commands:
    """Folders of trials with damaged files: planned on, and imported."""
    (folder / "study.yaml").write_text("name: s\nvariants: {SL: {}, two: {data.views: 2}}\nseeds: [0, 1]\n")
    for number in range(2):
        one = TrialFolder(folder / "trials" / f"{number:016x}")
        one.write_config(TrialConfig(seed=number))
        one.write_history([{"epoch": 1.0, "val/accuracy": 0.5}])
        one.write_result(
            TrialResult(
                trial_id=one.path.name,
                status=rng.choice(["finished", "pruned", "failed"]),
                epochs=1,
                best_epoch=1,
                image_passes=96,
                seconds=1.0,
                metrics={"best/val/accuracy": 0.5},
                tags={"numerics": "2"},
            )
        )
        path = one.path / rng.choice(["config.json", "result.json"])
        damaged_json(rng, path)
        if rng.random() < 0.3:
            history = one.path / "metrics.jsonl"
            history.write_bytes(damaged(rng, history.read_bytes()))
        if rng.random() < 0.1:
            shutil.rmtree(one.path)
            one.path.symlink_to(rng.choice([".", "nowhere"]))
    return [
        ["plan", str(folder / "study.yaml"), "--runs", str(folder)],
        ["import", str(folder), "--runs", "{store}"],
    ]


KINDS: dict[str, Case] = {
    "study": study_file,
    "manifest": manifest,
    "labels": label_file,
    "image": image,
    "trial": trial_folder,
}
SHARES = {"study": 12, "manifest": 2, "labels": 3, "image": 2, "trial": 1}
"""How many of 20 cases are of each kind."""
