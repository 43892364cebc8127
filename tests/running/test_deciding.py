"""Which trials are asked for until every comparison is decided; results come from a table, or from a stub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.reporting.results import load_results
from hmtl_ablate.reporting.tables import study_tables
from hmtl_ablate.running.continuing import continuations
from hmtl_ablate.running.deciding import Deciding
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.run import run_study
from hmtl_ablate.study import Study, Variant, load_study
from hmtl_ablate.tracking import open_tracking
from tests.running.conftest import StubTrainer, packs_of, read_study  # type: ignore[import-not-found]

Result = Callable[[str, int], float | None]


def study(variants: Mapping[str, Any], seeds: int = 8, **changes: Any) -> Study:
    arms = {name: {"data.views": number} for number, name in enumerate(variants, 2)}
    return load_study({"name": "a", "decide": {"seeds": seeds}, "variants": {"SL": {}, **arms}, **changes})


def rounds(found: Study, result: Result) -> list[tuple[int, tuple[str, ...]]]:
    """Seed and variants of each round that is asked for."""
    assert found.decide is not None
    deciding = Deciding(found, found.decide)
    asked: list[tuple[int, tuple[str, ...]]] = []

    def score(variant: Variant, seed: int, metric: str) -> float | None:
        assert metric == found.metric
        assert seed in (*found.first_seeds, *(known for known, _ in asked)), "only what is over"
        return result(variant.name, seed)

    while (more := deciding.more(score)) is not None:
        [seed] = {seed for _, seed in more.trials}
        asked.append((seed, tuple(variant.name for variant, _ in more.trials)))
    return asked


def offsets(**by: Callable[[int], float | None]) -> Result:
    """SL scores 0.5; another one so much more."""

    def result(name: str, seed: int) -> float | None:
        apart = by[name](seed) if name in by else 0.0
        return None if apart is None else 0.5 + apart

    return result


def clear(seed: int) -> float:
    return 0.2 + 0.01 * (seed % 2)


def vague(seed: int) -> float:
    return 0.2 * (-1) ** seed


def test_a_study_with_decide_continues_and_no_other() -> None:
    found = study({"clear": 0})
    assert [type(one) for one in continuations(found, ())] == [Deciding]
    assert continuations(load_study({"name": "a", "variants": {"SL": {}}}), ()) == ()


def test_what_is_decided_at_the_first_look_asks_for_nothing() -> None:
    assert rounds(study({"clear": 0}), offsets(clear=clear)) == []


def test_an_open_comparison_gets_all_its_seeds_and_a_closed_one_no_more() -> None:
    found = rounds(study({"clear": 0, "vague": 0}), offsets(clear=clear, vague=vague))
    assert found == [(seed, ("SL", "vague")) for seed in (4, 5, 6, 7)]


def test_the_first_seeds_are_those_of_the_study_in_its_order() -> None:
    found = rounds(listed(), offsets(vague=vague))
    assert [seed for seed, _ in found] == [2, 10]


def listed() -> Study:
    return load_study(
        {
            "name": "a",
            "decide": {"seeds": 6},
            "variants": {"SL": {}, "vague": {"data.views": 2}},
            "seeds": [9, 0, 1, 5, 2],
        }
    )


def test_a_failed_trial_costs_one_more_seed() -> None:
    """Seed 1 has no pair: three are left, which is no look, so one seed is added."""
    assert rounds(study({"late": 0}), offsets(late=lambda seed: None if seed == 1 else clear(seed))) == [
        (4, ("SL", "late"))
    ]


def test_a_control_that_others_share_is_trained_with_the_arm_that_is_open() -> None:
    variants = {"SL": {}, "HMTL": {"pretext": {"puzzling": {}}, "controls": []}}
    found = load_study({"name": "a", "decide": {"seeds": 5}, "variants": variants})
    same = offsets(**{"HMTL": clear, "HMTL: distortion": lambda seed: clear(seed) + vague(seed)})
    assert rounds(found, same) == [(4, ("HMTL", "HMTL: distortion"))]


@given(st.permutations(["a", "b", "c"]), st.lists(st.sampled_from([-0.02, 0.0, 0.01, 0.2]), min_size=24, max_size=24))
def test_the_order_of_arms_does_not_matter(order: list[str], noise: list[float]) -> None:
    def result(name: str, seed: int) -> float:
        return 0.5 if name == "SL" else 0.5 + noise[8 * "abc".index(name) + seed] + 0.1 * (name == "b")

    def asked(names: list[str]) -> list[tuple[int, set[str]]]:
        return [(seed, set(found)) for seed, found in rounds(study(dict.fromkeys(names)), result)]

    assert asked(order) == asked(["a", "b", "c"])


def halved(config: TrialConfig) -> dict[str, str]:
    """As of a GPU whose memory ran out with one trial of seed 1."""
    return {"batch_norm": "1/2 of a batch" if config.seed == 1 and config.training.lr == 0.5 else "batch"}


def apart(config: TrialConfig, epoch: int) -> float:
    return 0.4 + (0.2 + 0.01 * (config.seed % 2) if config.training.lr == 0.5 else 0.0)


def test_a_trial_that_the_report_leaves_out_decides_nothing_in_the_run(store: Path, pack: Pack, tmp_path: Path) -> None:
    """Of the first four pairs three count, so that there is no look yet; a fifth seed gives it, to both of them."""
    text = """\
name: decided
decide: {smallest: 0.5, seeds: 8}
base: {data: {images: 64, size: 32}, training: {epochs: 1, warmup_epochs: 0}}
variants: {SL: {}, clear: {training.lr: 0.5}}
"""
    found = read_study(tmp_path, text)
    trainer = StubTrainer(apart, tags=halved)
    options = RunOptions(engine="local")
    tracking = open_tracking(None, store)
    run_study(found, packs=packs_of(found, pack), store=store, tracking=tracking, options=options, trainer=trainer)
    (record,) = tracking.studies()
    assert record.asked == {"SL": [0, 1, 2, 3, 4], "clear": [0, 1, 2, 3, 4]}
    (table,) = study_tables(load_results(None, store))
    assert table.decisions is not None
    (one,) = table.decisions.comparisons
    assert (one.course.state, one.course.missing, one.course.estimate.n) == ("better", (1,), 4)
