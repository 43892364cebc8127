"""Records without MLflow: what they are written as reads back as themselves, also from stores of earlier versions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hmtl_ablate
from hmtl_ablate.config import parse_config
from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking.records import (
    Registration,
    RunData,
    StudyRecord,
    TrialRecord,
    flat,
    loggable,
    nested,
    rule_hash,
    text_hash,
)

OLD = json.loads((Path(__file__).parent / "runs_at_5b007a3.json").read_text(encoding="utf-8"))
"""A study's run and a trial's as commit 5b007a3 wrote them: no tag `hmtl.config`, each option a parameter."""

STUDY = StudyRecord(name="s", profile="quick", metric="test/accuracy", variants={"SL": "k"}, seeds=(0,))
TRIAL = TrialRecord(parent="p", trial_id="abc", variant="SL", seed=0, config={})

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.one_of(texts, st.sampled_from(["it's", 'say "SL"', "two\nlines", "`a`", "顔 😀", "hmtl.study", "a/2", ""]))
maps = st.dictionaries(names, names, max_size=4)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    names,
    st.lists(st.floats(0, 1)),
)
configs = st.dictionaries(names, values | st.dictionaries(names, values, max_size=3), max_size=4)
metric_names = st.from_regex(r"[a-z0-9_]+(/[a-z0-9_ .-]+){0,2}", fullmatch=True)
environments = st.dictionaries(st.sampled_from(["device", "host", "version.torch", "version.hmtl-ablate"]), names)
decides: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {
        "smallest": st.floats(0.1, 1),
        "seeds": st.integers(4, 100),
        "alpha": st.floats(0.01, 0.5),
        "comparisons": st.lists(st.lists(names, min_size=2, max_size=2), max_size=2),
    }
)
studies = st.builds(
    StudyRecord,
    name=names,
    profile=names,
    metric=names,
    data=names,
    question=names,
    variants=maps,
    evaluations=maps,
    controls=st.dictionaries(
        names, st.fixed_dictionaries({"sl": names, "tasks": st.dictionaries(names, st.lists(names))})
    ),
    seeds=st.lists(st.integers(0, 2**31)).map(tuple),
    asked=st.dictionaries(names, st.lists(st.integers(0, 2**31))),
    file=names,
    verdict=st.just({}) | st.fixed_dictionaries({"smallest": st.floats(0.1, 1), "alpha": st.floats(0.01, 0.5)}),
    decide=decides,
    plan=st.just({}) | st.just({"trials": 2, "seconds": None, "actual": {"trials": 1, "seconds": 3.5}}),
    registered=st.none()
    | st.builds(
        Registration,
        **dict.fromkeys(("study", "verdict", "metric", "time"), names),
        seeds=st.lists(st.integers(0, 2**31), max_size=3).map(tuple),
        trained=st.integers(0, 9),
        decide=decides,
    ),
    commit=names,
    run_id=names,
    started=st.integers(0),
)
trials = st.builds(
    TrialRecord,
    **dict.fromkeys(("parent", "study", "profile", "commit", "trial_id", "variant", "variant_key", "data"), names),
    **dict.fromkeys(("fingerprint", "protocol", "task", "evaluation", "reason", "run_id"), names),
    seed=st.integers(0, 2**31),
    stage=st.booleans(),
    numerics=st.integers(0, 99),
    config=configs,
    status=st.sampled_from(["running", "finished", "pruned", "failed"]),
    metrics=st.dictionaries(metric_names, st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    environment=environments,
    started=st.integers(0),
)


def stored(data: RunData, run_id: str = "r", started: int = 0, left: Mapping[str, str] | None = None) -> Any:
    """A run as MLflow's client returns it; left: tags that an earlier write has left in it."""
    for tag, text in data.tags.items():
        assert len(text) <= 8000, tag
        assert re.fullmatch(r"[\w\-. :/]+", tag), "a name that MLflow refuses"
    run = SimpleNamespace(tags={**(left or {}), **data.tags}, params=dict(data.params), metrics=dict(data.metrics))
    return SimpleNamespace(info=SimpleNamespace(run_id=run_id, start_time=started), data=run)


def old(kind: str) -> Any:
    run = OLD[kind]
    return stored(RunData(run["tags"], run.get("params", {}), run.get("metrics", {})), "r", 7)


@settings(max_examples=60)
@given(studies)
def test_a_study_reads_back_as_itself(record: StudyRecord) -> None:
    assert StudyRecord.from_run(stored(record.to_run(), record.run_id, record.started)) == record


@settings(max_examples=60)
@given(trials)
def test_a_trial_reads_back_as_itself(record: TrialRecord) -> None:
    assert TrialRecord.from_run(stored(record.to_run(), record.run_id, record.started)) == record


@settings(deadline=None)
@given(st.integers(7_990, 8_010) | st.integers(15_990, 16_010), st.integers(0, 30_000))
def test_a_text_of_any_length_reads_back_over_what_an_earlier_write_left(length: int, before: int) -> None:
    earlier = replace(TRIAL, variant="y" * before).to_run().tags
    record = replace(TRIAL, variant="x" * length, run_id="r")
    assert TrialRecord.from_run(stored(record.to_run(), left=earlier)) == record


def test_two_thousand_variants_keep_their_names_and_order() -> None:
    variants = {f"variant {number} «é»": f"{number:012x}" for number in reversed(range(2000))}
    record = replace(STUDY, variants=variants, question="?" * 9000, run_id="r")
    data = record.to_run()
    assert [tag for tag in data.tags if tag.startswith("hmtl.variants")][:3] == [
        "hmtl.variants",
        "hmtl.variants/2",
        "hmtl.variants/3",
    ]
    assert data.tags["mlflow.note.content"] == "?" * 8000
    found = StudyRecord.from_run(stored(data))
    assert found == record
    assert list(found.variants) == list(variants)


def test_a_study_of_an_earlier_version_has_no_controls_and_is_not_registered() -> None:
    record = StudyRecord.from_run(old("study"))
    assert (record.controls, record.verdict, record.file, record.registered) == ({}, {}, "", None)
    assert record.decide == {}


def test_a_registration_of_an_earlier_version_has_fixed_seeds() -> None:
    text = '{"study": "a", "verdict": "b", "metric": "c", "time": "d", "seeds": [0], "trained": 0}'
    record = StudyRecord.from_run(stored(RunData({**STUDY.to_run().tags, "hmtl.registered": text})))
    assert record.registered is not None
    assert record.registered.decide == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"study": "a", "verdict": "b", "metric": "c", "time": "d", "seeds": ["0"]}',
        '{"study": 1, "verdict": "b", "metric": "c", "time": "d", "seeds": [0]}',
        '{"seeds": 5}',
        '{"more": 1}',
        '{"study": "a", "verdict": "b", "metric": "c", "time": "d", "seeds": [0], "decide": {"seeds": 1}}',
        '{"study": "a", "verdict": "b", "metric": "c", "time": "d", "seeds": [0], "decide": 12}',
    ],
)
def test_a_registration_that_is_not_what_was_written_is_none(text: str) -> None:
    """It is never written again, so an error would have no way out."""
    good = replace(STUDY, registered=Registration(study="a", verdict="b", metric="c", seeds=(0,), time="d")).to_run()
    assert StudyRecord.from_run(stored(good)).registered is not None
    edited = RunData({**good.tags, "hmtl.registered": text})
    assert StudyRecord.from_run(stored(edited)).registered is None


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("hmtl.controls", "[]"),
        ("hmtl.controls", '{"a": "b"}'),
        ("hmtl.asked", "[]"),
        ("hmtl.asked", '{"SL": 3}'),
        ("hmtl.asked", '{"SL": ["0"]}'),
        ("hmtl.verdict", '{"alpha": "0.1"}'),
        ("hmtl.verdict", '{"alpha": 5}'),
        ("hmtl.decide", "[]"),
        ("hmtl.decide", '{"seeds": 3}'),
        ("hmtl.decide", '{"comparisons": [["HMTL"]]}'),
    ],
)
def test_controls_seeds_and_rules_that_are_no_such_are_refused(tag: str, text: str) -> None:
    with pytest.raises(TrackingError, match=tag):
        StudyRecord.from_run(stored(RunData({**STUDY.to_run().tags, tag: text})))


def test_hashes_by_hand() -> None:
    # printf 'name: a\n' | sha256sum; printf '{"alpha": 0.05, "smallest": 0.5}' | sha256sum
    assert text_hash("name: a\n") == "1e7e5f3c45fc71cc0d92ffd6a4136ce35256118f2cb9a940b09a9e336022a571"
    assert (
        rule_hash({"smallest": 0.5, "alpha": 0.05})
        == "31ad2c52c56229af3c6ee45ed8d08f90986ff05e57d08a08ea18d5f5624f0eee"
    )


def test_a_trial_as_mlflow_stores_it() -> None:
    config = parse_config({"seed": 3, "model": {"weights": "trial:abc"}, "data": {"fraction": 0.2}})
    record = replace(
        TRIAL,
        variant_key="k",
        seed=3,
        config=config.model_dump(mode="json") | {"own": {"text": "x" * 900}},
        metrics={"test/recall/a(b)": 0.5, "val/loss": float("nan"), "best/val/loss": float("inf")},
        environment={"device": "cpu"},
    )
    data = record.to_run()
    assert record.run_name == "SL · seed 3"
    assert replace(record, variant="search", variant_key="", trial_id="0123456789").run_name == "search · 012345"
    assert {name: data.tags[f"hmtl.{name}"] for name in ("kind", "seed", "stage", "status", "device")} == {
        "kind": "trial",
        "seed": "3",
        "stage": "",
        "status": "running",
        "device": "cpu",
    }
    assert "hmtl.reason" not in data.tags
    assert replace(record, status="finished").to_run().tags["hmtl.reason"] == ""
    assert data.metrics == {"test/recall/a_b_": 0.5}
    # people filter on these in MLflow's pages
    assert data.params == {
        "data.fraction": "0.2",
        "model.weights": "trial:abc",
        "own.text": "x" * 500,
        "seed": "3",
    }
    assert record.options["own.text"] == "x" * 900
    found = TrialRecord.from_run(stored(data)).config
    assert parse_config({key: value for key, value in found.items() if key != "own"}) == config


def test_a_study_of_an_earlier_version() -> None:
    assert StudyRecord.from_run(old("study")) == StudyRecord(
        name="low_data",
        profile="quick",
        metric="test/accuracy",
        data="rendered",
        question="Does it help?",
        variants={"SL": "a1", "SL + puzzling": "b2"},
        seeds=(0, 1),
        commit="5b007a3",
        run_id="r",
        started=7,
    )
    run = old("study")
    del run.data.tags["hmtl.evaluations"]  # still earlier
    assert StudyRecord.from_run(run).evaluations == {}


def test_a_trial_of_an_earlier_version_has_the_typed_config() -> None:
    record = TrialRecord.from_run(old("trial"))
    assert record.config == OLD["config"]
    assert (record.options["training.clip"], record.options["training.lookahead"]) == (None, False)
    assert (record.options["pretext.puzzling.changed_views"], record.options["seed"]) == ([[0.5, 1.0]], 1)
    assert (record.variant, record.variant_key, record.seed, record.status) == ("SL + puzzling", "b2", 1, "finished")
    assert (record.numerics, record.stage, record.fingerprint, record.started) == (2, False, "f0", 7)
    assert (record.environment["version.torch"], record.metrics["test/accuracy"]) == ("2.14.0", 0.7)
    # what is written today says the same
    assert TrialRecord.from_run(stored(record.to_run(), "r", 7)) == record


@pytest.mark.parametrize("text", ["rendered", "1_b", "[broken", "-", ".5.", "007", "None of them", "[" * 499])
def test_a_parameter_that_is_no_value_is_text(text: str) -> None:
    run = old("trial")
    run.data.params |= {"data.name": text, "data": "by another hand"}
    assert TrialRecord.from_run(run).options["data.name"] == text


@pytest.mark.parametrize(
    ("kind", "tag", "text"),
    [
        ("study", "study", None),
        ("study", "variants", None),
        ("study", "variants", "not JSON"),
        ("study", "variants", "[1]"),
        ("study", "variants", '{"SL": "a' + "1" * 7991),  # cut at 8,000 characters, as earlier versions did
        ("study", "seeds", '["0"]'),
        ("study", "controls", "[]"),
        ("study", "controls", '{"HMTL": "SL"}'),
        ("trial", "trial_id", None),
        ("trial", "seed", None),
        ("trial", "seed", "one"),
        ("trial", "numerics", "two"),
        ("trial", "config", "{"),
    ],
)
def test_a_run_that_is_not_ours_is_named_with_its_tag(kind: str, tag: str, text: str | None) -> None:
    run = old(kind)
    run.data.tags.pop(f"hmtl.{tag}", None)
    if text is not None:
        run.data.tags[f"hmtl.{tag}"] = text
    with pytest.raises(TrackingError, match=rf"run r .*hmtl\.{tag}"):
        (StudyRecord if kind == "study" else TrialRecord).from_run(run)


def test_metrics_as_mlflow_takes_them() -> None:
    given = {"epoch": 1, "val/recall/joy (7)": 0.5, "nan": float("nan"), "inf": float("inf"), "text": "1", "none": None}
    assert loggable(given) == {"epoch": 1.0, "val/recall/joy _7_": 0.5}


def test_dotted_keys() -> None:
    config = {"a": {"b": {"c": 1}, "d": None}, "e": [1, 2]}
    assert flat(config) == {"a.b.c": 1, "a.d": None, "e": [1, 2]}
    assert nested(flat(config)) == config
    assert nested({"a": 1, "a.b.c": 3, "a.b": 2, "a.b.d": 4}) == {"a": {"b": {"c": 3, "d": 4}}}


def test_the_tags_are_named_in_one_module() -> None:
    package = Path(hmtl_ablate.__file__).parent
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"""["']hmtl\.|mlflow\.(parentRunId|note)""", path.read_text(encoding="utf-8"))
    }
    assert naming == {"tracking/records.py"}


@pytest.mark.parametrize("text", ["{", "[]", '{"trials": "many"}', '{"trials": 1, "actual": {"seconds": "long"}}'])
def test_a_plan_that_can_t_be_read_is_none(text: str) -> None:
    """It is of no use for a result, and the next run writes it again."""
    made = STUDY.to_run()
    assert StudyRecord.from_run(stored(RunData({**made.tags, "hmtl.plan": text}))).plan == {}
