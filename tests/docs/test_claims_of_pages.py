"""What README and docs/ say of the program is true of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.config import PRETEXT_OPTIONS, LossConfig, ProbeConfig
from hmtl_ablate.data.registry import DATASETS
from hmtl_ablate.study import PRUNERS, SAMPLERS
from hmtl_ablate.supervised import SUPERVISED_TASKS

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_every_dataset_is_listed_once_with_its_labels() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", text("docs/datasets.md"), re.MULTILINE)
    assert sorted(rows) == sorted(DATASETS)


def test_every_choice_is_named() -> None:
    page = text("docs/methods.md")
    assert all(f"{name}: {{" in page for name in PRETEXT_OPTIONS)
    choices = [*SUPERVISED_TASKS, *PRUNERS, *SAMPLERS]
    for model, field in ((LossConfig, "combine"), (ProbeConfig, "kind")):
        literal: Any = model.model_fields[field].annotation
        choices += literal.__args__
    assert [name for name in choices if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_a_page_names_is_there(page: str) -> None:
    base = (ROOT / page).parent
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text(page)) if not link.startswith("http")]
    paths = re.findall(r"(?:search_spaces|analysis|docs|hmtl_ablate|tests)/[\w./]+\.\w+", text(page))
    missing = [link for link in links if not (base / link).exists()]
    missing += [name for name in paths if not (ROOT / name.rstrip(".")).exists()]
    assert missing == []


def test_readme_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 120
