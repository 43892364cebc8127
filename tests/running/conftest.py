"""Studies in milliseconds: a trainer that writes a trial's folder as the real one does, from a scripted curve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hmtl_ablate.config import DataConfig, TrialConfig, parse_config, trial_id
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack, load_pack
from hmtl_ablate.errors import TrialInterrupted
from hmtl_ablate.running.resolver import Packs
from hmtl_ablate.running.task import PRUNE, Report, TrialTask
from hmtl_ablate.study import Study, data_configs, load_study
from hmtl_ablate.training.folder import TrialFolder, TrialResult, is_complete


def rising(config: TrialConfig, epoch: int) -> float:
    """Every metric of val, from 0.1 at the first epoch."""
    return 0.1 * epoch


@dataclass(frozen=True)
class StubTrainer:
    """A trainer whose metrics come from `curve`; `before` runs ahead of each epoch, and may raise. `tags`: of the
    results."""

    curve: Callable[[TrialConfig, int], float] = rising
    before: Callable[[TrialConfig, int], None] | None = None
    tags: Callable[[TrialConfig], dict[str, str]] = lambda config: {}

    def __call__(self, task: TrialTask, report: Report) -> None:
        config, folder = parse_config(task.config), TrialFolder(task.folder)
        folder.set_damage_aside()
        done = folder.result()
        if done is not None and is_complete(config, done, task.evaluate_test):
            return
        folder.write_config(config)
        for epoch in range(len(folder.history()) + 1, config.training.epochs + 1):
            if self.before is not None:
                self.before(config, epoch)
            if task.stop.exists():
                raise TrialInterrupted("stopped")
            values = {f"val/{name}": self.curve(config, epoch) for name in config.metrics}
            row = {"epoch": epoch, **values, "image_passes": 100 * epoch, "seconds": float(epoch)}
            folder.append_history(row)
            report(row)
            if (task.folder / PRUNE).exists() and epoch < config.training.epochs:
                write_result(task, config, "pruned")
                return
        write_result(task, config, "finished", tags=self.tags(config))


def write_result(
    task: TrialTask, config: TrialConfig, status: str, reason: str = "", tags: dict[str, str] | None = None
) -> None:
    """result.json, from the history; the test split measures what the last epoch of val did."""
    folder = TrialFolder(task.folder)
    folder.write_config(config)
    last = folder.history()[-1] if folder.history() else {"epoch": 0.0}
    values = {name: value for name, value in last.items() if name.startswith("val/")}
    metrics = {f"best/{name}": value for name, value in values.items()}
    if task.evaluate_test and status == "finished":
        metrics |= {name.replace("val/", "test/"): value for name, value in values.items()}
    folder.write_result(
        TrialResult(
            trial_id=trial_id(config, load_pack(task.pack).fingerprint),
            status=status,  # type: ignore[arg-type]
            reason=reason,
            epochs=int(last["epoch"]),
            best_epoch=int(last["epoch"]),
            image_passes=100 * int(last["epoch"]),
            seconds=float(last["epoch"]),
            metrics=metrics,
            tags=tags or {},
        )
    )


@dataclass
class Recorder:
    """A ProgressListener that remembers: names in the order of their starts, how each ended, and every line."""

    expected: int = 0
    skipped: int = 0
    started: list[str] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    epochs: list[tuple[str, int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    left: Callable[[int], float | None] | None = None
    _names: dict[str, str] = field(default_factory=dict)

    def expect(self, trials: int) -> None:
        self.expected += trials

    def skip(self) -> None:
        self.skipped += 1

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def start(self, trial_id: str, name: str, config: TrialConfig) -> None:
        self._names[trial_id] = name if not name.startswith("search") else f"search {config.declared().get('pretext')}"
        self.started.append(self._names[trial_id])

    def epoch(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        self.epochs.append((self._names[trial_id], int(metrics["epoch"])))

    def end(self, trial_id: str, status: str, result: Mapping[str, float], seconds: float) -> None:
        self.ended.append((self._names.get(trial_id, trial_id), status))

    def forecast(self, left: Callable[[int], float | None]) -> None:
        self.left = left


def read_study(folder: Path, text: str) -> Study:
    path = folder / "study.yaml"
    path.write_text(text)
    return load_study(path)


def packs_of(study: Study, pack: Pack) -> Packs:
    """One small pack in the place of every dataset."""
    return Packs({Packs.key(data): pack for data in data_configs(study)})


def trial_runs(store: Path, study: str | None = None) -> list:
    """The MLflow runs of trials, of one study or of all."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hmtl-ablate")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    own = [run for run in runs if run.data.tags["hmtl.kind"] == "trial"]
    return [run for run in own if study is None or run.data.tags["hmtl.study"] == study]


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return open_pack(DataConfig(images=64, size=32), None, tmp_path_factory.mktemp("pack"))
