"""What README says of the program is true of it."""

import re
from pathlib import Path

from hmtl_ablate.config import PRETEXT_OPTIONS, LossConfig, ProbeConfig
from hmtl_ablate.data.registry import DATASETS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## What it can do")[1].split("\n## ")[0]


def test_the_matrix_lists_every_dataset_once() -> None:
    table = SECTION.split("| dataset")[1]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(DATASETS)


def test_the_matrix_names_every_pretext_task_combination_and_probe() -> None:
    assert all(f"{name}: {{" in SECTION for name in PRETEXT_OPTIONS)
    for model, field in ((LossConfig, "combine"), (ProbeConfig, "kind")):
        choices = model.model_fields[field].annotation.__args__
        assert all(f"`{choice}`" in SECTION for choice in choices), choices


def test_every_file_it_names_is_there() -> None:
    root = Path(__file__).parent.parent
    for name in set(re.findall(r"(?:search_spaces|analysis|docs)/[\w./]+\.\w+", README)):
        assert (root / name).exists(), name
