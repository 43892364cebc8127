"""Every study file that comes with the project, at every profile, through the local engine and into the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.results import load_results
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.run import run_study
from hmtl_ablate.study import load_study, planned
from hmtl_ablate.tracking import Tracking, open_tracking
from tests.running.conftest import StubTrainer, packs_of, trial_runs  # type: ignore[import-not-found]

FOLDER = Path(__file__).parents[2] / "search_spaces"
SHORT = ["training.epochs=1", "training.warmup_epochs=0", "resources.gpus=0"]


def cases() -> list[ParameterSet]:
    """Each study file at each of its profiles; most are slow for their number alone."""
    fast = {"puzzling-quick", "pretraining-quick", "head_pose-quick"}  # a search, stages, another task
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        for profile in ("quick", "standin", "large", "paper"):
            if profile == "quick" or f"\n  {profile}:" in text:
                name = f"{path.stem}-{profile}"
                found.append(pytest.param(path, profile, id=name, marks=() if name in fast else pytest.mark.slow))
    return found


@pytest.fixture(scope="module")
def shared(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tracking]:
    """One store for all of the files."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    return folder, open_tracking(None, folder)


@pytest.mark.parametrize(("path", "profile"), cases())
def test_every_study_file_runs_and_every_declared_row_is_reported(
    path: Path, profile: str, shared: tuple[Path, Tracking], pack: Pack
) -> None:
    trials = 2 if "search:" in path.read_text() else None
    seeds = [0, 1, 2] if "kind: path" in path.read_text() else [0]  # a path needs seeds to be chosen, and others
    study = load_study(path, profile=profile, sets=SHORT, seeds=seeds, trials=trials)
    store, tracking = shared
    summary = run_study(
        study,
        packs=packs_of(study, pack),
        store=store,
        tracking=tracking,
        options=RunOptions(engine="local"),
        trainer=StubTrainer(),
    )
    assert (summary.failed, summary.interrupted) == ([], False)
    assert summary.done + summary.skipped >= len({config.model_dump_json() for _, _, config in planned(study)})
    report = json.loads(render(build_report(load_results(None, store), study.name), "json"))
    tables = [table for table in report["studies"] if table["profile"] == profile]
    rows = {row["variant"]: row for table in tables for row in table["rows"]}
    assert rows.keys() >= {variant.name for variant in study.variants}
    epochs = {variant.name: variant.config(0).training.epochs for variant in study.variants}  # 1, but of a control
    for name, row in rows.items():
        # with `decide` a comparison ends with fewer seeds than there may be
        assert len(study.first_seeds) <= row["n_seeds"] <= len(study.seeds)
        assert row["mean"] == pytest.approx(0.1 * epochs.get(name, 1))  # the stub's scores
        assert row["image_passes"] == 100 * epochs.get(name, 1)
    if study.search is not None:
        tags = [run.data.tags for run in trial_runs(store, study.name)]
        searched = [tag for tag in tags if tag["hmtl.variant"] == "search" and tag["hmtl.profile"] == profile]
        # two configurations of each arm; in a race both get four seeds, and six where neither is eliminated
        counts = {arm: sum(tag["hmtl.arm"] == arm for tag in searched) for arm in {tag["hmtl.arm"] for tag in searched}}
        assert counts == {one.arm: 2 if one.racing == 1 else 12 for one in study.searches}
