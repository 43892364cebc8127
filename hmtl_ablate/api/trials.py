"""One trial, trained in this process without Ray, MLflow or Optuna."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from hmtl_ablate.checks import check_labels, check_networks, open_store
from hmtl_ablate.config import TrialConfig, parse_config, trial_id
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.errors import DataError, TrialInterrupted, nearest
from hmtl_ablate.running.stop import stop_on_signal
from hmtl_ablate.storage import store_folder
from hmtl_ablate.training import loop
from hmtl_ablate.training.folder import TrialFolder, TrialResult

if TYPE_CHECKING:
    import pandas as pd

OnEpoch = Callable[[Mapping[str, float]], object]
"""Called after each epoch with its row of the history; what it returns is ignored."""


@dataclass(frozen=True, repr=False)
class TrainedTrial:
    """A trial that has ended.

    >>> import hmtl_ablate as ha
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> trial.status, trial.epochs, sorted(trial.history[0])[0]
    ('finished', 1, 'epoch')
    """

    folder: Path
    """The trial's folder in the store: config, weights, predictions, pictures, log."""
    config: TrialConfig
    result: TrialResult
    """All that result.json holds: tags of the machine, classes, confusion matrices, image passes."""
    history: tuple[dict[str, float], ...]
    """One row per epoch: train/… (losses, accuracy, gradient norms and cosines), val/…, lr, image_passes, seconds."""

    @property
    def trial_id(self) -> str:
        """16 hexadecimal digits; the name of the folder."""
        return self.result.trial_id

    @property
    def status(self) -> str:
        """finished, pruned (stopped early by a search), or failed (the loss diverged)."""
        return self.result.status

    @property
    def reason(self) -> str:
        """Why the trial was stopped early or failed; "" for a finished one."""
        return self.result.reason

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return self.result.epochs

    @property
    def metrics(self) -> dict[str, float]:
        """best/val/… of the best epoch, and test/… with its weights; accuracies from 0 to 1, angles in degrees."""
        return self.result.metrics

    def frame(self) -> pd.DataFrame:
        """The history as a frame, one row per epoch."""
        import pandas as pd

        return pd.DataFrame(self.history).astype({"epoch": int}).set_index("epoch")

    def __repr__(self) -> str:
        first = next(iter(self.config.metrics), "")
        shown = [
            f"{name}={self.metrics[name]:.4g}"
            for name in (f"best/val/{first}", f"test/{first}")
            if name in self.metrics
        ]
        return f"TrainedTrial({', '.join([self.trial_id, self.status, *shown, f'folder={str(self.folder)!r}'])})"


def train(
    config: TrialConfig | Mapping[str, Any],
    *,
    store: str | Path = "runs",
    seed: int | None = None,
    data: str | Path | Mapping[str, str | Path] | None = None,
    evaluate_test: bool = True,
    progress: bool | OnEpoch | None = None,
    threads: int = 1,
    keep_last: bool = False,
) -> TrainedTrial:
    """Train one trial in this process and return it; a finished one is read from the store.

    >>> import hmtl_ablate as ha
    >>> config = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> ha.train(config, seed=1).trial_id == ha.train(config, seed=1).trial_id
    True

    The folder is `store`/trials/<trial_id>, so a later run of a study that has this trial skips it. Ctrl-C saves a
    checkpoint and raises KeyboardInterrupt; the same call resumes. While another process trains the same trial, the
    call waits for its result. torch's threads, determinism and random state are afterwards as they were before.

    Args:
        config: a TrialConfig, or its options as nested mappings.
        store: the folder of trials and packs.
        seed: replaces the config's.
        data: path of the config's dataset, or a mapping from dataset names to paths; None for rendered faces.
        evaluate_test: measure the test split, once, with the best weights.
        progress: None shows a bar on a terminal or in a notebook; True prints one line per epoch; False is silent; a
            function is called with each epoch's row of the history.
        threads: CPU threads. With 1, as in studies by default, the numbers are those that a study gets.
        keep_last: keep the last checkpoint, with the optimiser's state, of a trial that has ended.

    Raises:
        ConfigError: the config is wrong; the error lists every fault.
        DataError: the dataset is missing, broken, or has no labels for a task.
        StoreError: the store can't be written.
    """
    settled = _settled(config, seed)
    place = open_store(store_folder(store))
    check_networks([settled])
    pack = open_pack(settled.data, _path(settled.data.name, data), place)
    check_labels(settled, pack)
    folder = place / "trials" / trial_id(settled, pack.identity(settled.tasks))
    gpus = range(torch.cuda.device_count())
    before = TrialFolder(folder).aside()
    asked = stop_on_signal(place / f".{folder.name}.stop")
    with _reported(progress, settled) as report, asked as stop, torch.random.fork_rng(gpus):

        def on_epoch(row: dict[str, float]) -> bool:
            report(row)
            return False  # True would end the trial as pruned

        try:
            result = loop.train(
                settled,
                pack,
                folder,
                evaluate_test=evaluate_test,
                on_epoch=on_epoch,
                stop=lambda: stop.requested,
                threads=threads,
                keep_last=keep_last,
            )
        except TrialInterrupted:
            raise KeyboardInterrupt("training stopped; the same call resumes from the checkpoint") from None
    for name, changed in TrialFolder(folder).aside().items():
        if changed != before.get(name):
            logging.getLogger("hmtl_ablate").warning("%s: damaged, and trained again: %s", folder, name)
    return TrainedTrial(folder, settled, result, tuple(TrialFolder(folder).history()))


def _settled(config: TrialConfig | Mapping[str, Any], seed: int | None) -> TrialConfig:
    settled = config if isinstance(config, TrialConfig) else parse_config(config)
    return settled if seed is None else settled.replaced({("seed",): seed})


def _path(name: str, data: str | Path | Mapping[str, str | Path] | None) -> Path | None:
    """Path of dataset `name`."""
    if isinstance(data, Mapping):
        if name not in data and data:
            raise DataError(
                f"data has no path of {name!r}, which data.name of the config asks for; {nearest(name, data)}"
            )
        data = data.get(name)
    return None if data is None else Path(data)


@contextmanager
def _reported(progress: bool | OnEpoch | None, config: TrialConfig) -> Iterator[OnEpoch]:
    """What is called after each epoch."""
    if callable(progress):
        yield progress
    elif progress is None:
        with tqdm(total=config.training.epochs, unit="epoch", disable=not _watched()) as bar:

            def advance(row: Mapping[str, float]) -> None:
                bar.update(int(row["epoch"]) - bar.n)  # a resumed trial starts later
                bar.set_postfix({name: f"{row[name]:.3g}" for name in _shown(config, row)})

            yield advance
    else:
        yield (lambda row: print(_line(config, row), flush=True)) if progress else (lambda row: None)


def _watched() -> bool:
    """Does a person see a bar on stderr, in a terminal or a notebook?"""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _line(config: TrialConfig, row: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} {row[name]:.4g}" for name in _shown(config, row))
    return f"epoch {row['epoch']:.0f}/{config.training.epochs}: {shown}, {row['seconds']:.1f} s"


def _shown(config: TrialConfig, row: Mapping[str, float]) -> list[str]:
    """The metrics of an epoch worth a line: the training loss and what selects the weights."""
    return [name for name in ("train/loss", config.selects_by) if name in row]
