"""UTKFace: gender in file names."""

from __future__ import annotations

from pathlib import Path

from tests.data.conftest import (
    label,
    read,
    save,
    utkface,
)


def test_utkface_names_contain_the_gender(tmp_path: Path) -> None:
    utkface(tmp_path, ("",))
    faulty = (
        "39_1_20170116174525125.jpg.chip.jpg",
        "61_3_20170109150557335.jpg.chip.jpg",
        "24_0_1.jpg",
        "53__0_20170116184028385.jpg",
    )
    for seed, name in enumerate((*faulty, "55_0_0_20170116232725357jpg.chip.jpg")):
        save(tmp_path / name, 100 + seed)
    source = read("utkface", tmp_path)
    assert label(source, "20_0_0_20170116174525120.jpg.chip.jpg", "gender") == "male"
    assert label(source, "21_1_1_20170116174525121.jpg.chip.jpg", "gender") == "female"
    assert dict(source.dropped) == dict.fromkeys(sorted(faulty), "its name is not like age_gender_race_date.jpg")
    assert len(source.samples) == 7
