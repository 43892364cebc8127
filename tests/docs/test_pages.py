"""The Python page and the notebook run as they are printed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parent.parent.parent / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((DOCS / page).read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("registries")
def test_the_python_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "python_page"}
    found = blocks("python.md")
    assert len(found) >= 7
    for number, block in enumerate(found, start=1):
        exec(compile(block, f"python.md, block {number}", "exec"), names)


def test_the_python_page_names_every_function() -> None:
    import hmtl_ablate

    text = (DOCS / "python.md").read_text()
    functions = [name for name in hmtl_ablate.__all__ if name[0].islower()]
    assert [name for name in functions if not re.search(rf"\bha\.{name}\b", text)] == []


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}
    assert "6 trained" not in str(outputs["run"])  # the first trial is one of the six
    assert "5 trained, 1 finished before" in str(outputs["run"])
    assert "image/png" in str(outputs["figure"])
    assert not [output for found in outputs.values() for output in found if output["output_type"] == "error"]


def test_the_notebook_is_committed_without_outputs() -> None:
    """Outputs hold paths and numbers of one machine, and change with every run."""
    notebook = nbformat.read(DOCS / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_the_page_of_failures_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (DOCS / "failures.md").read_text())
    assert len(named) > 50
    texts = {file: (DOCS.parent / file).read_text() for file, _ in named}
    assert [f"{file}::{name}" for file, name in named if name and f"def {name}(" not in texts[file]] == []
