"""A bundle is a stranger's file: it is read or refused, never followed, and never ends in a traceback."""

from __future__ import annotations

import io
import json
import pickle
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmtl_ablate.bundles import reading
from hmtl_ablate.bundles.layout import BundleError
from hmtl_ablate.bundles.verifying import Verification, verify_file
from tests.bundles.conftest import Tamper, contents, written  # type: ignore[import-not-found]


def refused(path: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        verify_file(path)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "/tmp/evil.txt",
        "trials/../../evil",
        "trials/0123456789abcdef/best.safetensors",
        "a\\..\\b",
        "x.py",
    ],
)
def test_names_that_no_bundle_has(bundle: Path, tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "bad.zip", {**contents(bundle), name: b"x"})
    refused(path, "nothing of it was unpacked")
    assert not list(tmp_path.rglob("evil*"))


def test_links_and_repeated_names(bundle: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "bad.zip", contents(bundle))
    link = zipfile.ZipInfo("studies/2.yaml")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(path, "nothing of it was unpacked")
    path = written(tmp_path / "bad.zip", contents(bundle))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("report.json", "{}")
    refused(path, "twice")


def test_bombs(bundle: Path, tmp_path: Path, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {**contents(bundle), f"{first}/metrics.jsonl": bytes(40 * 2**20)}
    refused(written(tmp_path / "bad.zip", many), "more than it may")
    monkeypatch.setattr(reading, "ENTRIES", 3)
    refused(bundle, "at most 3")


def array(header: dict[str, Any] | None = None, **arrays: Any) -> bytes:
    """predictions.npz; header: of an array `x` without content."""
    buffer = io.BytesIO()
    if header is None:
        np.savez(buffer, **arrays)
        return buffer.getvalue()
    with zipfile.ZipFile(buffer, "w") as archive:
        inner = io.BytesIO()
        np.lib.format.write_array_header_1_0(inner, header)
        archive.writestr("x.npy", inner.getvalue())
    return buffer.getvalue()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the bundle's code ran",))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (array(x=np.array([Evil()], dtype=object)), "not of numbers"),
        (pickle.dumps([Evil()]), "can't be read"),
        (array({"descr": "<f4", "fortran_order": False, "shape": (10**12,)}), "another size"),
        (array({"descr": "<U9", "fortran_order": False, "shape": (0,)}), "not of numbers"),
        (b"", "can't be read"),
    ],
)
def test_arrays_that_are_none(tamper: Tamper, first: str, content: bytes, match: str) -> None:
    refused(tamper({f"{first}/predictions.npz": lambda old: content}), match)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.json", b"[" * 100_000),
        ("report.json", b"[]"),
        ("records.json", b'{"studies": [], "trials": [{"run_id": 1}]}'),
        ("manifest.json", b'{"format": 99, "files": {}}'),
        ("metrics.jsonl", b'{"epoch": ' + b"9" * 5000 + b"}\n"),
        ("metrics.jsonl", b'{"epoch": 1, "val/accuracy": "high"}\n'),
        ("config.json", b'{"task": "os.system"}'),
        ("result.json", b"[1]"),
        ("result.json", b"\xff\xfe"),
    ],
)
def test_content_that_hmtl_ablate_never_writes(
    bundle: Path, tmp_path: Path, first: str, name: str, content: bytes
) -> None:
    place = name if name in contents(bundle) else f"{first}/{name}"
    refused(written(tmp_path / "bad.zip", {**contents(bundle), place: content}), ".")


def test_files_that_are_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "missing.zip", "there is no file")
    refused(tmp_path, "is no file")
    (tmp_path / "text.zip").write_text("no zip")
    refused(tmp_path / "text.zip", "damaged, or no bundle")
    refused(written(tmp_path / "empty.zip", {}), "it has no manifest.json")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_of_the_file(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(bundle.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.zip"
    path.write_bytes(content)
    read_or_refused(path)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_of_one_entry(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    files = contents(bundle)
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(written(tmp_path / "flipped.zip", {**files, name: bytes(content)}))


def read_or_refused(path: Path) -> None:
    try:
        assert isinstance(verify_file(path), Verification)
    except BundleError:
        return


def test_texts_of_a_bundle_can_t_drive_a_terminal(tamper: Tamper) -> None:
    def change(content: bytes) -> bytes:
        report = json.loads(content)
        report["studies"][0]["question"] = "\x1b[2J\nall consistent"
        return json.dumps(report).encode()

    (one,) = verify_file(tamper({"report.json": change})).differences
    assert str(one).isprintable()
