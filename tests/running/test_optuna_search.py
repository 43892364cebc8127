"""Optuna's part, on a real SQLite storage."""

import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hmtl_ablate.config import TrialConfig, parse_config, trial_id
from hmtl_ablate.errors import SearchError
from hmtl_ablate.running.continuing import winners_of
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.optuna_search import OptunaSearch, best_of, connect
from hmtl_ablate.study import load_study

SPACES = {
    "tpe": "pretext.puzzling.grid: {choice: [2, 3, 4]}\n    pretext.puzzling.weight: {loguniform: [0.1, 10.0]}",
    "random": "pretext.puzzling.feed: {choice: [shared, mixed]}\n"
    "    pretext.puzzling.share: {uniform: [0.1, 0.9], when: {pretext.puzzling.feed: mixed}}",
    "grid": "pretext.puzzling.grid: {choice: [2, 3]}\n    training.batch_size: {choice: [32, 64, 128]}",
    "gp": "pretext.puzzling.weight: {loguniform: [0.1, 10.0]}\n    training.lr: {loguniform: [0.001, 0.01]}",
    "cmaes": "pretext.puzzling.weight: {uniform: [0.1, 10.0]}\n    training.lr: {uniform: [0.001, 0.01]}",
    "nsga2": "pretext.puzzling.grid: {choice: [2, 3, 4]}\n    pretext.puzzling.weight: {loguniform: [0.1, 10.0]}",
}


def identify(config: TrialConfig) -> str:
    return trial_id(config, "data")


def optuna_search(
    folder: Path, sampler: str = "tpe", trials: int = 6, space: str | None = None, pruner: str = "none"
) -> OptunaSearch:
    path = folder / "s.yaml"
    path.write_text(
        f"name: s\nseeds: [0]\nsearch:\n  base: {{pretext: {{puzzling: {{}}}}}}\n  space:\n"
        f"    {space or SPACES[sampler]}\n  sampler: {sampler}\n  trials: {trials}\n"
        f"  pruner: {{name: {pruner}}}\n  racing: null\n"
    )
    search = load_study(path).search
    assert search is not None
    return OptunaSearch(search, "s@quick#data", (0,), connect(None, folder), identify)


def score(config: TrialConfig) -> float:
    return 1 / (1 + abs(config.pretext["puzzling"].weight - 1.2))


def finish(decide: OptunaSearch, count: int = 1000) -> list[str]:
    ended: list[str] = []
    left = decide.adopt()
    while len(ended) < count and (draw := left.pop(0) if left else decide.next()) is not None:
        decide.tell(draw, TrialState.COMPLETE, [score(draw.config)])
        ended.append(draw.trial_id)
    return ended


@pytest.mark.parametrize("sampler", SPACES)
def test_every_sampler_reaches_the_total_with_distinct_trials(tmp_path: Path, sampler: str) -> None:
    ended = finish(optuna_search(tmp_path, sampler))
    assert len(ended) == len(set(ended)) == 6
    assert finish(optuna_search(tmp_path, sampler)) == []


@pytest.mark.parametrize(
    ("sampler", "first"),
    [
        ("tpe", 10),
        ("random", 12),
        ("grid", 0),
        pytest.param("gp", 10, marks=pytest.mark.slow),
        ("cmaes", 1),
        ("nsga2", 0),
    ],
)
def test_a_draw_says_whether_it_depends_on_scores(tmp_path: Path, sampler: str, first: int) -> None:
    """Of a sampler that learns the first draws do not; a restart changes nothing in that."""
    decide = optuna_search(tmp_path, sampler, trials=12)
    kinds: list[str] = []
    for _ in range(12):
        decide = decide if len(kinds) != 5 else optuna_search(tmp_path, sampler, trials=12)
        if (draw := decide.next()) is not None:
            kinds.append(draw.kind)
            decide.tell(draw, TrialState.COMPLETE, [score(draw.config)])
    independent, others = ("grid", 6) if sampler == "grid" else ("random", first)
    assert kinds == [independent] * others + ["sampler"] * (0 if sampler == "grid" else 12 - first)
    assert [draw.kind for draw, _, _ in decide.configurations()] == kinds


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SPACES)
def test_every_sampler_goes_on_after_a_restart_without_repeats(tmp_path: Path, sampler: str) -> None:
    first = finish(optuna_search(tmp_path, sampler), 3)
    second = finish(optuna_search(tmp_path, sampler))
    assert (len(first), len(second)) == (3, 3)
    assert len({*first, *second}) == 6


def test_a_dead_driver_s_trials_are_adopted(tmp_path: Path) -> None:
    dead = optuna_search(tmp_path)
    draws = [dead.next(), dead.next()]
    alive = optuna_search(tmp_path)
    ended = finish(alive)
    assert ended[:2] == [draw.trial_id for draw in draws if draw]
    assert len(ended) == 6
    assert alive.counted() == 6


def test_a_trial_killed_between_ask_and_its_attributes_is_not_counted(tmp_path: Path) -> None:
    optuna_search(tmp_path).study.ask()
    alive = optuna_search(tmp_path)
    assert len(finish(alive)) == 6
    assert [t.state for t in alive.study.trials if "trial_id" not in t.user_attrs] == [TrialState.FAIL]


@pytest.mark.slow
def test_a_repeated_configuration_is_told_and_not_counted_and_a_small_space_ends(tmp_path: Path) -> None:
    decide = optuna_search(tmp_path, trials=10, space="pretext.puzzling.grid: {choice: [2, 3, 4]}")
    ended = finish(decide)
    assert len(ended) == len(set(ended)) == 3
    repeats = [t for t in decide.study.trials if "repeats" in t.user_attrs]
    assert repeats
    assert all(t.state == TrialState.COMPLETE for t in repeats)


def test_given_configurations_come_first_once_and_the_sampler_after_them(tmp_path: Path) -> None:
    values = {"pretext.puzzling.grid": 4, "pretext.puzzling.weight": 7.5}
    for _ in range(2):  # a second driver gives the same
        decide = optuna_search(tmp_path, trials=3)
        decide.give(values, "start")
    first, second = decide.next(), decide.next()
    assert first
    assert second
    assert (first.kind, second.kind) == ("start", "random")
    assert first.config.pretext["puzzling"].model_dump()["grid"] == 4
    assert first.config.pretext["puzzling"].weight == 7.5
    decide.tell(first, TrialState.COMPLETE, [0.2])
    decide.tell(second, TrialState.COMPLETE, [0.9])
    best = best_of(decide.study._storage, "s@quick#")
    assert best is not None
    assert best[1] == values
    assert best_of(decide.study._storage, "another@quick#") is None


def test_an_exhausted_grid_ends_the_search(tmp_path: Path) -> None:
    ended = finish(optuna_search(tmp_path, "grid", trials=100))
    assert len(ended) == 6


def test_draws_under_way_count_towards_the_total(tmp_path: Path) -> None:
    decide = optuna_search(tmp_path, trials=2)
    draws = [decide.next(), decide.next()]
    assert all(draws)
    assert decide.next() is None


def test_a_diverged_trial_counts(tmp_path: Path) -> None:
    decide = optuna_search(tmp_path, trials=2)
    draw = decide.next()
    assert draw
    decide.tell(draw, TrialState.FAIL)
    assert decide.counted() == 1
    assert len(finish(decide)) == 1


def test_pruner_state_survives_a_restart(tmp_path: Path) -> None:
    """Successive halving needs the values of earlier trials: good trials come first, then a bad one."""
    first = optuna_search(tmp_path, trials=8, pruner="successive_halving")
    for _ in range(4):
        draw = first.next()
        assert draw
        for epoch in range(1, 5):
            assert first.report(draw, epoch, 0.9 + 0.001 * draw.trial.number) in (True, False)
        first.tell(draw, TrialState.COMPLETE, [0.9])
    second = optuna_search(tmp_path, trials=8, pruner="successive_halving")
    draw = second.next()
    assert draw
    assert any(second.report(draw, epoch, 0.1) for epoch in range(1, 5))


def test_a_wider_space_takes_over_the_trials_that_still_mean_the_same(tmp_path: Path) -> None:
    ended = finish(optuna_search(tmp_path, space="pretext.puzzling.grid: {choice: [2, 3]}", trials=2))
    wider = optuna_search(tmp_path, space="pretext.puzzling.grid: {choice: [2, 3, 4]}", trials=3)
    assert wider.counted() == 2
    (new,) = finish(wider)
    assert new not in ended
    assert {
        json.loads(t.user_attrs["values"])["pretext.puzzling.grid"]
        for t in wider.study.trials
        if "repeats" not in t.user_attrs
    } == {2, 3, 4}


@pytest.mark.parametrize(
    "url", ["mysql://x", "journal.log", "sqlite:////nowhere/at/all/x.db", "postgresql://nobody@127.0.0.1:1/x"]
)
def test_a_storage_that_cannot_be_used(tmp_path: Path, url: str) -> None:
    with pytest.raises(SearchError, match="--storage"):
        connect(url, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://me:secret@127.0.0.1:1/x",
        "postgresql://me:secret@127.0.0.1:1/x",
        "postgresql+psycopg://me:secret@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?user=me&password=secret",
        "postgresql://me:secret@127.0.0.1:port/x",
        "postgresql://me:secret/x@127.0.0.1:1/x",
        "mysql://me:secret@127.0.0.1/x",
        "postgresql:me:secret@127.0.0.1/x",
    ],
)
def test_no_password_of_a_storage_is_shown(tmp_path: Path, url: str) -> None:
    """Fault C11."""
    with pytest.raises(SearchError, match="--storage") as caught:
        connect(url, tmp_path)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(RunOptions(storage=url))


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    """Fault C16: SQLite itself gives up after 5 s."""
    decide = optuna_search(tmp_path)
    with closing(sqlite3.connect(tmp_path / "optuna.db", isolation_level=None, check_same_thread=False)) as other:
        engine = decide.study._storage._backend.engine  # type: ignore[attr-defined]
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
        other.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.3, other.rollback).start()
        assert decide.next() is not None


def test_a_winner_is_confirmed_beside_sl_at_equal_epochs_and_passes() -> None:
    raw = {"data": {"fraction": 0.2}, "training": {"epochs": 30}, "loss": {"combine": "dwa", "label_smoothing": 0.1}}
    best = parse_config({**raw, "pretext": {"puzzling": {"feed": "siamese", "weight": 3.0}}})
    alone, views, winner = winners_of(best)
    assert winner.config(0) == best
    for variant, passes in ((alone, 1), (views, 2)):
        config = variant.config(0)
        assert (config.pretext, config.passes_per_image, config.loss.combine) == ({}, passes, "sum")
        assert (config.training.epochs, config.data.fraction, config.loss.label_smoothing) == (30, 0.2, 0.1)
    assert [one.name for one in winners_of(parse_config({**raw, "pretext": {"puzzling": {"feed": "shared"}}}))] == [
        "best of search, SL alone",
        "best of search",
    ]  # a shared feed costs what SL does
    assert len(winners_of(parse_config({"training": {"lr": 0.1}}))) == 1


def test_optuna_s_own_tools_show_what_a_search_is_about(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nseeds: [0]\nvariants:\n  SL: {}\n  HMTL: {pretext: {puzzling: {}}}\nsearch:\n  arms:\n"
        "    HMTL: {space: {training.lr: {uniform: [0.001, 0.01]}}}\n  trials: 2\n  racing: null\n"
        "  pruner: {name: median}\n  objective: {val/accuracy: max, val/loss: min}\n  sampler: nsga2\n"
    )
    [search] = load_study(path).searches
    storage = connect(None, tmp_path)
    for question in ("Which rate?", "Which rate is best?"):
        OptunaSearch(search, "s@quick#data", (0,), storage, identify, {"question": question})
    own, proxy = sorted(optuna.get_all_study_names(storage), key=len)
    assert own == f"s@quick#data#{search.space_hash} HMTL"
    assert proxy == f"proxy of {own}"
    loaded = {name: optuna.load_study(study_name=name, storage=storage) for name in (own, proxy)}
    assert {name: study.metric_names for name, study in loaded.items()} == {
        own: ["val/accuracy", "val/loss"],
        proxy: ["val/accuracy"],
    }
    assert {study.user_attrs["question"] for study in loaded.values()} == {"Which rate is best?"}


def test_a_search_of_an_earlier_version_keeps_its_name(tmp_path: Path) -> None:
    search = replace(optuna_search(tmp_path).search, arm="HMTL")
    storage = connect(None, tmp_path)
    old = f"s@quick#data#{search.space_hash}"
    optuna.create_study(storage=storage, study_name=old, direction="maximize")
    assert OptunaSearch(search, "s@quick#data", (0,), storage, identify).study.study_name == old
