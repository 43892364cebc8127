from pathlib import Path

import pytest

from hmtl_ablate.reporting.pages import write_page


def names(folder: Path) -> str:
    return ", ".join(sorted(file.name for file in folder.iterdir()))


def write(*arguments: object) -> int:
    return write_page([str(argument) for argument in arguments], "python page.py", "python make.py", names)


def test_a_page_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, target = tmp_path / "records", tmp_path / "page.md"
    folder.mkdir()
    (folder / "a.json").touch()
    assert write(folder, target) == 0
    assert target.read_text() == "a.json"
    assert capsys.readouterr().out == f"written to {target}\n"


def test_a_folder_without_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(tmp_path, tmp_path / "page.md") == 2
    assert "no *.json here; make one with python make.py" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert write("folder") == 2
    assert capsys.readouterr().err == "usage: python page.py FOLDER PAGE.md\n"
