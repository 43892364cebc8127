"""What a run has found: the study's answer, table and best, for the end of the command and for its page in MLflow."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.answer import answers
from hmtl_ablate.reporting.document import Section
from hmtl_ablate.reporting.render import Report, build_document, render, render_sections
from hmtl_ablate.reporting.results import Results, pretext_tasks, results_of
from hmtl_ablate.reporting.tables import StudyTable, study_tables
from hmtl_ablate.reporting.wording import label, number_text, plural
from hmtl_ablate.tracking import StudyRecord, TrialRecord

DRAWN = "rendered"
"""The dataset whose faces are drawn by rule."""
ON_REAL_FACES = {
    "puzzling": "puzzling gave +1.49 points [+0.08, +2.90] over SL with 2 views, "
    "and +0.39 [−0.56, +1.33] over the same distorted faces without its loss",
}
"""Pretext task → what it gave on a fifth of FER+ (docs/results.md, ferplus_attribution)."""


@dataclass(frozen=True)
class Outcome:
    """What a study's trials say so far."""

    tables: tuple[StudyTable, ...]
    """The study's table, and one for each of its evaluations."""
    drawn: tuple[str, ...] = ()
    """Of a study on drawn faces: the pretext tasks in it."""
    results: Results | None = field(default=None, repr=False, compare=False)
    """The frames that the tables were made from."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The answer to the study's question, its search's best, and what real faces gave where its own are drawn."""
        found = [sentence for table in self.tables for sentence in answers(table)]
        found += [sentence for table in self.tables[:1] for sentence in _best_tried(table)]
        known = [ON_REAL_FACES[task] for task in self.drawn if task in ON_REAL_FACES]
        if known:
            found.append(f"These faces are drawn. On real ones (a fifth of FER+) {'; '.join(known)}: docs/results.md")
        return tuple(sentence if sentence.endswith((".", "!")) else f"{sentence}." for sentence in found)

    def table_text(self, width: int) -> str:
        """The tables for a terminal of so many columns; "" for a study without trained variants."""
        return render_sections(self._sections(), "terminal", width) if self._sections() else ""

    @property
    def page(self) -> str:
        """Markdown for MLflow's page of the study: question, answer, tables."""
        question = self.tables[0].question if self.tables else ""
        blocks = [question] if question else []
        blocks += ["\n".join(f"- {sentence}" for sentence in self.sentences)] if self.sentences else []
        blocks += [render_sections(self._sections(), "markdown")] if self._sections() else []
        return "\n\n".join(blocks)

    @property
    def report(self) -> str:
        """The study's whole report in Markdown."""
        return render(Report((), self.tables, empty=False), "markdown")

    def figures(self) -> dict[str, bytes]:
        """The report's figures as PNG, under the paths that they have in the study's run; none of them shows a face."""
        from hmtl_ablate.reporting.figures import drawings  # matplotlib takes half a second
        from hmtl_ablate.reporting.figures.style import png

        found: dict[str, bytes] = {}
        for table in self.tables if self.results is not None else ():
            assert self.results is not None
            folder = "/".join(["figures", re.sub(r"[^\w-]+", "_", table.evaluation)]).strip("/")
            found |= {f"{folder}/{kind.key}.png": png(one.figure) for kind, one in drawings(table, self.results)}
        return found

    @property
    def scores(self) -> dict[str, float]:
        """The best mean of the study's metric over its arms, and the best score of its search, under their names."""
        found: dict[str, float] = {}
        for table in self.tables[:1]:
            means = [row.score.mean for row in table.rows if row.score.mean is not None]
            if means:
                found[table.metric] = (max if metric_info(table.metric).direction == "max" else min)(means)
            search = table.search
            first = [one for one in search.found if one.rank == 1] if search else []
            promised = [one.promised.mean for one in first if one.promised.mean is not None]
            if search is not None and promised:
                found[f"search/{search.objective}"] = (max if search.direction == "max" else min)(promised)
        return found

    def _sections(self) -> list[Section]:
        shown = [table for table in self.tables if table.rows]
        made = build_document(Report((), tuple(shown), empty=False)).studies
        return [
            Section(table.title, "", (replace(table, title="", lead="", answers=(), notes=()),))
            for table in made
            if table.rows
        ]


def outcome_of(study: StudyRecord, trials: Sequence[TrialRecord], store: Path | None = None) -> Outcome:
    """What these trials of a study say. store: the folder of the trials, whose curves and matrices the figures show."""
    results = replace(results_of([study], trials), store=store)
    rows: list[dict[Hashable, Any]] = results.trials.to_dict("records") if study.data == DRAWN else []
    tasks = {task for row in rows for task in pretext_tasks(row["options"])}
    return Outcome(tuple(study_tables(results)), tuple(sorted(tasks)), results)


def _best_tried(table: StudyTable) -> list[str]:
    """One sentence for the best configuration of each arm of the search."""
    if table.search is None:
        return []
    percent = metric_info(table.search.objective).unit == "%"
    found = []
    for one in table.search.found:
        if one.rank > 1 or one.promised.mean is None:
            continue
        values = ", ".join(
            f"{key.rpartition('.')[2]} {value:.2g}" if isinstance(value, float) else f"{key.rpartition('.')[2]} {value}"
            for key, value in one.changes.items()
            if value is not None
        )
        unseen = "" if one.confirmed.n else ", not confirmed with other seeds"
        found.append(
            f"Best of the search{f' of {one.arm}' if one.arm else ''}: {values}; {label(table.search.objective)} "
            f"{number_text(one.promised.mean, percent)} with {plural(one.promised.n, 'seed')}{unseen}"
        )
    return found
