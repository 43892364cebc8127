"""A trial in words, for the description of its run in MLflow's pages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hmtl_ablate.config import TrialConfig, metric_info
from hmtl_ablate.errors import ConfigError
from hmtl_ablate.supervised import SUPERVISED_TASKS

if TYPE_CHECKING:
    from hmtl_ablate.tracking.records import TrialRecord

ELSEWHERE = ("seed",)
"""Options that the first sentence of a description names."""
RESULTS = ("test/", "best/val/")
"""Beginnings of the names of a result's metrics, in the order in which they are shown."""


def changed_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a resolved config that differ from their defaults, by dotted keys; values keep their types.

    A pretext task's options differ from those of the task, which is off by default: one without any changed option is
    there as `pretext.NAME: on`. Options that the config does not know, e.g. of a later version, are kept.
    """
    found = _differences(config, _defaults())
    try:
        tasks: Mapping[str, Any] = TrialConfig.model_validate(config).declared().get("pretext", {})
    except (ValidationError, ConfigError):  # of another version
        return found
    own = {f"pretext.{key}": value for key, value in _differences(tasks, {}).items()}
    own |= {f"pretext.{name}": "on" for name, options in tasks.items() if not options}
    return {key: value for key, value in found.items() if not key.startswith("pretext.")} | own


def trial_text(record: TrialRecord) -> str:
    """Markdown: what a trial is, in what its config differs from the defaults, and how it ended."""
    changes = {key: value for key, value in changed_options(record.config).items() if key not in ELSEWHERE}
    blocks = [_what(record), _result(record)]
    if changes:
        lines = [f"- `{key}`: {_words(value)}" for key, value in changes.items()]
        blocks.append("\n".join(["Differs from the defaults in", "", *lines]))
    else:
        blocks.append("All options have their defaults.")
    return "\n\n".join(blocks)


def _what(record: TrialRecord) -> str:
    if record.variant_key:
        what = f"Stage **{record.variant}**" if record.stage else f"Variant **{record.variant}**"
    else:
        what = f"Configuration of the search{f' of **{record.arm}**' if record.arm else ''}"
        what += f", drawn by {record.draw}" if record.draw else ""
    parts = [what, f"seed {record.seed}", record.evaluation, f"task {record.task}" if record.task else ""]
    study = f" of study {record.study} ({record.profile})" if record.study else ""
    return f"{', '.join(part for part in parts if part)}{study}{f', on {record.data}' if record.data else ''}."


def _result(record: TrialRecord) -> str:
    reason = f": {record.reason}" if record.reason else ""
    if record.status == "running":
        return "It has no result yet."
    if record.status == "failed":
        return f"**Failed**{f' ({record.ending})' if record.ending else ''}{reason}."
    measured = [f"{_title(name)} {_number(name, value)}" for name, value in _main(record.metrics).items()]
    if "seconds" in record.metrics:
        measured.append(f"{record.metrics['seconds']:,.0f} seconds")
    how = "Stopped early" if record.status == "pruned" else "Finished"
    return f"**{how}**{reason}{'; ' if reason else ': '}{', '.join(measured)}." if measured else f"**{how}**{reason}."


def _main(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of the test split and of the selected epoch by which the supervised tasks are compared: the first one
    that each declares."""
    main = {next(iter(entry.metrics), "") for entry in SUPERVISED_TASKS.values()}
    tasks = {"", *SUPERVISED_TASKS}  # with several tasks each has its own metrics
    return {
        name: value
        for start in RESULTS
        for name, value in metrics.items()
        if name.startswith(start)
        and name.rpartition("/")[2] in main
        and name.removeprefix(start).rpartition("/")[0] in tasks
    }


def _title(name: str) -> str:
    return f"{'test' if name.startswith('test/') else 'validation'} {metric_info(name).title}"


def _number(name: str, value: float) -> str:
    unit = metric_info(name).unit
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.2f} {unit}".strip()


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


@cache
def _defaults() -> dict[str, Any]:
    return TrialConfig().model_dump(mode="json")


def _differences(config: Mapping[str, Any], defaults: Any, start: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        default = defaults.get(key, _differences) if isinstance(defaults, Mapping) else _differences
        if isinstance(value, Mapping):
            found |= _differences(value, default, f"{start}{key}.")
        elif value != default:
            found[f"{start}{key}"] = value
    return found
