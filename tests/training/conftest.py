from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.config import TrialConfig, parse_config, trial_id
from hmtl_ablate.data.pack import Pack, open_pack
from hmtl_ablate.training.folder import TrialResult
from hmtl_ablate.training.loop import train

BASE: dict[str, dict[str, Any]] = {
    "data": {"images": 96, "size": 32},
    "training": {
        "optimizer": "adamw",
        "lookahead": False,
        "lr": 0.004,
        "batch_size": 32,
        "epochs": 3,
        "warmup_epochs": 0,
    },
}
Make = Callable[..., TrialConfig]
Train = Callable[..., TrialResult]


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return open_pack(parse_config(BASE).data, None, tmp_path_factory.mktemp("store"))


@pytest.fixture
def make() -> Make:
    """A small config, changed by dotted keys."""

    def config(**changes: Any) -> TrialConfig:
        raw: dict[str, Any] = {key: dict(value) for key, value in BASE.items()}
        for key, value in changes.items():
            group, _, name = key.partition("__")
            if name:
                raw.setdefault(group, {})[name] = value
            else:
                raw[group] = value
        return parse_config(raw)

    return config


@pytest.fixture
def run(pack: Pack, tmp_path: Path) -> Train:
    def call(config: TrialConfig, folder: str = "", **options: Any) -> TrialResult:
        place = tmp_path / (folder or trial_id(config, pack.fingerprint))
        return train(config, pack, place, **({"evaluate_test": True} | options))

    return call
