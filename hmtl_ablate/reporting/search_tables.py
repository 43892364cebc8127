"""What the report shows of a search: its best configurations, Pareto front, importances and tuning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.document import DASH, Column, Table
from hmtl_ablate.reporting.importance import FEWEST
from hmtl_ablate.reporting.search import Found, StudySearch
from hmtl_ablate.reporting.statistics import Estimate, without_interval
from hmtl_ablate.reporting.tuning import DRAWS_FOR_A_BAND, TuningPoint
from hmtl_ablate.reporting.winner import variants_text
from hmtl_ablate.reporting.wording import count_text, label, number_text, plural
from hmtl_ablate.study import WINNER
from hmtl_ablate.study.declaration import COSTS

SHOWN = 5
"""Configurations of each arm that people see; programs get all."""
PASTE = "The winner as a variant, to paste below the key variants of the study file:"
PASTE_ALL = "The winner of each arm as a variant, to paste below the key variants of the study file:"
FRONT = "No other configuration is at least as good in every objective and better in one."
_SHARES: tuple[Column[tuple[str, float]], ...] = (
    Column("option", lambda row: row[0], "Option", align="left"),
    Column("importance", lambda row: row[1], "Importance, %", lambda row: f"{100 * row[1]:.1f}"),
)
CURSE = (
    "The search's seeds are where a configuration was picked for its score, so that score promises too much; the "
    "unseen seeds alone give an estimate. Promised − found is the winner's curse."
)


def search_tables(table: Any) -> tuple[Table[Any], ...]:
    """For people: the best configurations of each arm, the Pareto front, importances, and each arm's tuning curve."""
    search: StudySearch | None = table.search
    if search is None or not search.arms:
        return ()
    of = f"{table.name} ({table.profile}), data: {table.data or 'none yet'}"
    best = tuple(one for one in search.found if one.rank <= SHOWN or one.confirmed.n)
    code = variants_text(search.found)
    notes = (
        CURSE,
        *_configurations(search, best),
        *_spent(search),
        *((PASTE if len(search.arms) == 1 else PASTE_ALL,) if code else ()),
    )
    found: list[Table[Any]] = [Table(f"Search · {of}", "", _columns(search), best, notes, code=code)]
    front = tuple(one for one in search.found if one.on_front)
    if front:
        found.append(Table(f"Pareto front · {of}", "", _front_columns(search), front, (FRONT,)))
    shares = tuple(search.importances.items())
    if shares:
        found.append(Table(f"Importance · {of}", "", _SHARES, shares, _share_notes(search)))
    curves = tuple((arm.arm, point) for arm in search.arms for point in _marks(arm.curve))
    if curves:
        found.append(Table(f"Tuning curves · {of}", "", _curve_columns(search), curves, _curve_notes(search)))
    return tuple(found)


def search_data(table: Any, csv: Mapping[str, Any]) -> Table[tuple[str, str, str, Estimate]] | None:
    """For programs: one row per configuration and estimate. csv: the cells that the study's rows share in CSV."""
    search: StudySearch | None = table.search
    if search is None:
        return None
    rows = tuple(
        (one.variant, part, metric, value)
        for one in search.found
        for part, metric, value in (
            ("promised by the search", search.objective, without_interval(one.promised)),
            ("found with unseen seeds", search.objective, one.confirmed),
            ("found with unseen seeds", search.metric, one.test),
        )
    )
    rows += tuple(("", f"importance of {key}", "", Estimate(1, share)) for key, share in search.importances.items())
    columns: tuple[Column[tuple[str, str, str, Estimate]], ...] = (
        Column("variant", lambda row: row[0]),
        Column("part", lambda row: row[1]),
        Column("metric", lambda row: row[2]),
        Column("n_seeds", lambda row: row[3].n),
        Column("mean", lambda row: row[3].mean),
        Column("sd", lambda row: row[3].sd),
        Column("mean_ci95_low", lambda row: row[3].low),
        Column("mean_ci95_high", lambda row: row[3].high),
    )
    return Table("", "", columns, rows, csv={**csv, "table": "search"})


def search_json(search: StudySearch | None) -> dict[str, Any]:
    """For JSON: the key `search` with the costs of the arms and their best configurations; {} without a search."""
    if search is None:
        return {}
    arms = [asdict(arm) for arm in search.arms]
    facts = {"objective": search.objective, "racing": search.racing, "arms": arms, "best": records(search)}
    return {"search": {**facts, "importances": search.importances, "winner": variants_text(search.found)}}


def records(search: StudySearch | None) -> list[dict[str, Any]]:
    """One record per configuration, in the objective's own unit (accuracy from 0 to 1)."""
    return [
        {
            "arm": one.arm,
            "rank": one.rank,
            "variant": one.variant,
            "options": dict(one.changes),
            "others": dict(one.others),
            "on_front": one.on_front,
            "search_seeds": one.promised.n,
            "promised": one.promised.mean,
            "unseen_seeds": one.confirmed.n,
            "found": one.confirmed.mean,
            "found_ci95_low": one.confirmed.low,
            "found_ci95_high": one.confirmed.high,
            "optimism": one.optimism,
            "test": one.test.mean,
            "test_ci95_low": one.test.low,
            "test_ci95_high": one.test.high,
        }
        for one in (() if search is None else search.found)
    ]


def curve_records(search: StudySearch | None) -> list[dict[str, Any]]:
    """One record per arm and number of random draws: its tuning curve, in the objective's own unit."""
    arms = () if search is None else search.arms
    return [{"arm": arm.arm, **asdict(point)} for arm in arms for point in arm.curve]


def _marks(curve: tuple[TuningPoint, ...]) -> list[TuningPoint]:
    """The points that are shown: after 1, 2, 5, 10, 20, 50, … draws, and after all."""
    shown = {factor * 10**power for power in range(7) for factor in (1, 2, 5)} | {len(curve)}
    return [point for point in curve if point.n in shown]


def _curve_columns(search: StudySearch) -> tuple[Column[tuple[str, TuningPoint]], ...]:
    percent = in_percent(search.objective)
    arms = any(arm.arm for arm in search.arms)
    return (
        Column("arm", lambda row: row[0], "Arm" if arms else "", align="left"),
        Column("n", lambda row: float(row[1].n), "Draws", lambda row: str(row[1].n)),
        Column("passes", lambda row: row[1].passes, "Image passes", lambda row: count_text(row[1].passes)),
        Column("expected", lambda row: row[1].expected, "Expected best", lambda r: number_text(r[1].expected, percent)),
        Column("median", lambda row: row[1].median, "Median", lambda row: number_text(row[1].median, percent)),
        Column(
            "band",
            lambda row: None,
            "95 % band",
            lambda row: f"{number_text(row[1].low, percent)} … {number_text(row[1].high, percent)}",
        ),
    )


def _curve_notes(search: StudySearch) -> tuple[str, ...]:
    few = [arm for arm in search.arms if arm.curve and len(arm.curve) < DRAWS_FOR_A_BAND]
    notes = [
        f"The best {label(search.objective)} of so many random draws, each with the search's first seed. Nothing is "
        "said beyond the draws that were made. — in a band: these draws do not bound it.",
        *(f"{arm.arm or 'Search'}: {len(arm.curve)} random draws are too few for a band." for arm in few),
    ]
    return tuple(notes)


def _columns(search: StudySearch) -> tuple[Column[Found], ...]:
    percent, tested = in_percent(search.objective), in_percent(search.metric)
    return (
        Column("best", lambda row: row.variant, "Best", _short, align="left"),
        Column(
            "promised",
            lambda row: row.promised.mean,
            f"Promised: {label(search.objective)}",
            lambda row: _with_n(row.promised, percent),
            wrap=True,
        ),
        Column(
            "found", lambda row: row.confirmed.mean, "Found", lambda row: _with_n(row.confirmed, percent), wrap=True
        ),
        Column("optimism", lambda row: row.optimism, "Promised − found", lambda row: _signed(row.optimism, percent)),
        Column(
            "test", lambda row: row.test.mean, label(search.metric), lambda row: _with_n(row.test, tested), wrap=True
        ),
    )


def _short(row: Found) -> str:
    return row.variant.removeprefix(f"{WINNER}, ")


def _with_n(value: Estimate, percent: bool) -> str:
    if value.mean is None:
        return DASH
    sd = "" if value.sd is None else f" ± {number_text(value.sd, percent)}"
    return f"{number_text(value.mean, percent)}{sd} (n = {value.n})"


def _signed(value: float | None, percent: bool) -> str:
    return number_text(value, percent, sign=True)


def _configurations(search: StudySearch, best: Sequence[Found]) -> list[str]:
    """One line per configuration: its options."""
    order = f"The first {SHOWN} of {len(search.found)} configurations with a score"
    if len(search.arms) > 1:
        order = f"The first {SHOWN} configurations of each arm, of {len(search.found)} with a score"
    if search.others:
        order += ", those on the Pareto front before all others"
    lines = [f"{_short(one)}: {_changes(one)}" for one in best]
    return [f"{order}.", *lines] if len(best) < len(search.found) or search.others else lines


def _changes(one: Found) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in one.changes.items()) or "no options"


def _other_column(name: str) -> Column[Found]:
    return Column(name, lambda row: row.others.get(name), label(name), lambda row: _other(name, row.others.get(name)))


def _front_columns(search: StudySearch) -> tuple[Column[Found], ...]:
    percent = in_percent(search.objective)
    others = tuple(_other_column(name) for name in search.others)
    return (
        Column("best", lambda row: row.variant, "Configuration", _short, align="left"),
        Column(
            "promised",
            lambda row: row.promised.mean,
            label(search.objective),
            lambda row: _with_n(row.promised, percent),
            wrap=True,
        ),
        *others,
        Column("options", lambda row: None, "Options", _changes, align="left"),
    )


def _other(name: str, value: float | None) -> str:
    if value is None:
        return DASH
    return count_text(value) if name in COSTS else number_text(value, in_percent(name))


def _share_notes(search: StudySearch) -> tuple[str, ...]:
    count = sum(one.promised.mean is not None for one in search.found)
    few = f" Fewer than {FEWEST} say little." if count < FEWEST else ""
    return (
        f"PED-ANOVA (Watanabe et al. 2023, by Optuna) of {label(search.objective)}, over "
        f"{plural(count, 'configuration')} with a score.{few} Options that only some configurations have are left out.",
    )


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _spent(search: StudySearch) -> list[str]:
    """One line per arm: what it has drawn, trained and spent."""
    words = {
        "random": "at random",
        "sampler": "from scores",
        "grid": "of the grid",
        "start": "declared",
        "from": "taken",
    }
    lines = []
    for arm in search.arms:
        draws = ", ".join(f"{count} {words.get(kind, kind or 'unknown')}" for kind, count in arm.draws.items())
        lines.append(
            f"{arm.arm or 'Search'}: {plural(arm.configurations, 'configuration')} ({draws}), "
            f"{plural(arm.runs, 'training run')}, {arm.image_passes:,.0f} image passes"
        )
    return lines
