"""What `data check` prints."""

from __future__ import annotations

from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.build import check_data
from hmtl_ablate.data.describe import describe
from tests.data.conftest import (
    affectnet,
    affectnet_row,
    save,
    table,
)


def test_classes_are_counted_and_other_labels_too(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"{i}.png", i)
    rows: list[list[object]] = [["path", "gender", "yaw", "pitch", "roll", "valence", "arousal", "split"]]
    for i, split in enumerate(("train", "train", "train", "val", "val", "test")):
        pose = (1, 2, 3) if i % 2 else ("", "", "")
        rows.append([f"{i}.png", "m" if i < 4 else "f", *pose, *((0.5, 0.5) if i < 2 else (-2, -2)), split])
    table(tmp_path / "faces.csv", [*rows, ["gone.png", "x", "", "", "", "", "", "train"]])
    first, *rest = describe(check_data(DataConfig(name="csv", size=32), tmp_path)).splitlines()
    assert first.startswith("csv: 6 images, 32 px, colour, fingerprint ")
    assert rest == [
        "  layout: faces.csv with path, gender, yaw, pitch, roll, valence, arousal, split; "
        "images in the table's folder",
        "  orientation notes of images (EXIF) are ignored: labels or boxes refer to the stored pixels",
        "  gender, train: male 3, female 0",
        "  gender, valid: male 1, female 1",
        "  gender, test: male 0, female 1",
        "  affect, labelled images: train 2, valid 0, test 0; "
        "valence 0.5 to 0.5 (mean 0.5), arousal 0.5 to 0.5 (mean 0.5)",
        "  pose, labelled images: train 1, valid 1, test 1; "
        "yaw 1 to 1 (mean 1), pitch 2 to 2 (mean 2), roll 3 to 3 (mean 3)",
        "  unusable files: 1; dropped duplicates: 0",
        "    gone.png: gender 'x' is not one of male, female, 0 (male), 1 (female)",
    ]


def test_pages_reasons_and_duplicates(tmp_path: Path) -> None:
    affectnet(tmp_path)
    images = tmp_path / "Manually_Annotated_Images"
    for i in range(7):
        (images / f"copy{i}.jpg").write_bytes((images / str(i) / f"{i}.jpg").read_bytes())
    rows = [affectnet_row(f"copy{i}.jpg", i) for i in range(7)]
    with (tmp_path / "validation.csv").open("a") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in [*rows, affectnet_row("x.tif", 1)])
    lines = describe(check_data(DataConfig(name="affectnet", size=32), tmp_path)).splitlines()
    assert lines[1] == "  http://mohammadmahoor.com/affectnet/ (research only, signed agreement)"
    assert lines[2] == "  layout: the lists training.csv and validation.csv, with face boxes"
    assert lines[3].startswith("  orientation notes of images (EXIF) are ignored")
    assert lines[4].startswith("  emotion, train: neutral 1, happiness 1, ")
    assert lines[6].startswith("  emotion, test: neutral 0, ")
    assert lines[7:] == [
        "  affect, labelled images: train 9, valid 15, test 0; "
        "valence 0.1 to 0.1 (mean 0.1), arousal -0.2 to -0.2 (mean -0.2)",
        "  left out, .tif or .bmp file: 1",
        "  unusable files: 0; dropped duplicates: 7",
        *(f"    {i}/{i}.jpg = copy{i}.jpg: also in valid" for i in range(5)),
        "    … all of them are in the pack's manifest.json",
    ]
