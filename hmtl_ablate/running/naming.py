"""What a trial of a search tries, in words that fit on a line."""

from __future__ import annotations

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.study import Search
from hmtl_ablate.tracking.records import flat


def tried_text(search: Search, config: TrialConfig) -> str:
    """The searched options of a trial with their values, e.g. `weight 1.9, grid 3, feed mixed`.

    An option has the last part of its dotted key as its name, or the whole key where two end alike. Options that the
    trial does not have, because another one rules them out, are left out. A race has several trials of the same values,
    so it adds the seed.
    """
    options = flat(config.model_dump(mode="json"))
    last = [key.rpartition(".")[2] for key in search.keys]
    parts = []
    chosen: dict[str, object] = {}
    for parameter, short in zip(search.parameters, last, strict=True):
        if not parameter.active(chosen) or parameter.key not in options:
            continue
        chosen[parameter.key] = value = options[parameter.key]
        name = short if last.count(short) == 1 else parameter.key
        parts.append(f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join([*parts, f"seed {config.seed}"] if search.racing > 1 else parts)
