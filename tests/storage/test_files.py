"""Files that are whole or unchanged."""

from pathlib import Path

import pytest

from hmtl_ablate.storage.files import replacing, write_atomically


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"old")
    with pytest.raises(FileNotFoundError), replacing(path) as new:  # the temporary file is lost
        new.unlink()
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
