"""The examples of docs/extending.md, run as a lab would run them."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import hmtl_ablate as ha

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
TINY = {
    "data": {"images": 96, "size": 32},
    "training": {"epochs": 1, "warmup_epochs": 0, "batch_size": 32, "optimizer": "adamw", "lookahead": False},
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's modules, on Python's path; what they register is taken back afterwards."""
    from hmtl_ablate.config import PRETEXT_OPTIONS
    from hmtl_ablate.data.registry import DATASETS
    from hmtl_ablate.pretext import PRETEXT_TASKS
    from hmtl_ablate.supervised import SUPERVISED_TASKS

    for name, code in BLOCKS.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    before = [(registry, dict(registry)) for registry in (PRETEXT_OPTIONS, PRETEXT_TASKS, DATASETS, SUPERVISED_TASKS)]
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    registry: Any
    for registry, content in before:
        registry.clear()
        registry.update(content)


def test_the_page_has_both_modules() -> None:
    assert sorted(BLOCKS) == ["ages", "mirror"]


def test_a_pretext_task_of_a_lab(lab: Path) -> None:
    importlib.import_module("mirror")
    result = ha.train({**TINY, "pretext": {"mirror": {"weight": 0.5, "feed": "siamese"}}}, store=lab / "runs")
    assert result.status == "finished"
    [row] = result.history
    assert 0 <= row["val/mirror/accuracy"] <= 1
    assert row["train/mirror"] > 0


def test_a_supervised_task_and_a_dataset_of_a_lab(lab: Path) -> None:
    importlib.import_module("ages")
    faces, draw = lab / "faces", np.random.default_rng(0)
    faces.mkdir()
    for number in range(96):
        image = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(faces / f"{20 + number % 50}_{number}.png"), image)
    config = {**TINY, "task": "age", "data": {"name": "ages", "size": 32}}
    result = ha.train(config, data={"ages": faces}, store=lab / "runs")
    assert result.status == "finished"
    assert result.metrics["test/mae_years"] > 0
