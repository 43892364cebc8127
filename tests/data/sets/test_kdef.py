"""KDEF: codes in file names."""

from __future__ import annotations

from pathlib import Path

from tests.data.conftest import (
    kdef,
    label,
    read,
    save,
    subjects,
)


def test_kdef_codes(tmp_path: Path) -> None:
    kdef(tmp_path)
    save(tmp_path / "AF01" / "AF31V.JPG", 0)  # a name that the real set has
    source = read("kdef", tmp_path)
    codes = dict(
        zip(
            ("AF", "AN", "DI", "HA", "NE", "SA", "SU"),
            ("fear", "anger", "disgust", "happiness", "neutral", "sadness", "surprise"),
            strict=True,
        )
    )
    assert {code: label(source, f"BF01/BF01{code}S.JPG") for code in codes} == codes
    assert label(source, "AF01/AF01HAS.JPG", "gender") == "female"
    assert label(source, "AM02/AM02HAS.JPG", "gender") == "male"
    assert {name[:4]: subject for name, subject in subjects(source).items()} == {
        "AF01": "F01",
        "BF01": "F01",
        "AM02": "M02",
    }
    assert source.left_out == {"not a frontal view": 21}
    assert source.dropped == (("AF01/AF31V.JPG", "its name is not like AF01AFS.JPG"),)
