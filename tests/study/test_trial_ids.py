"""Trial ids and search-space hashes of every study file, pinned.

An id that moves would make every trained trial of every user start anew. They may move only when NUMERICS_VERSION is
raised, or when a study file itself changes; then write the file again: python -m tests.study.test_trial_ids
"""

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from hmtl_ablate.config import trial_id
from hmtl_ablate.study import load_study

SPACES = Path(__file__).parents[2] / "search_spaces"
PINNED = Path(__file__).with_name("trial_ids.json")
FINGERPRINT = "0123456789abcdef"


def identities() -> dict[str, dict[str, Any]]:
    """Study file @ profile → ids of its trials by variant, keys of its variants, hash of its search space."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(SPACES.glob("*.yaml")):
        profiles = YAML(typ="safe").load(file.read_text(encoding="utf-8")).get("profiles") or {"quick": {}}
        for profile in profiles:
            study = load_study(file, profile=profile)
            arms = (*study.stages, *study.variants)
            found[f"{file.name}@{profile}"] = {
                "trials": {arm.name: [trial_id(arm.config(seed), FINGERPRINT) for seed in study.seeds] for arm in arms},
                "keys": {arm.name: arm.key for arm in arms},
                "space": study.search.space_hash if study.search else None,
            }
    return found


def test_no_trial_id_moves() -> None:
    assert identities() == json.loads(PINNED.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PINNED.write_text(json.dumps(identities(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
