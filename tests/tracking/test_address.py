"""Addresses: what they mean, what is shown of them, and which are refused, all without MLflow."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking.address import Address, parse_address, without_password


def test_the_default_is_a_file_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse_address(None, Path("runs"))
    assert address.sqlite_file == tmp_path / "runs" / "mlflow.db"
    assert address.is_database
    assert parse_address("sqlite:///other.db", Path("runs")).sqlite_file == tmp_path / "other.db"


def test_a_server(tmp_path: Path) -> None:
    address = parse_address("https://me:secret@host:5000/x", tmp_path)
    assert address.uri == "https://me:secret@host:5000/x"
    assert not address.is_database
    assert address.sqlite_file is None
    address.probe()  # MLflow's client does that


def test_postgresql_uses_the_installed_driver(tmp_path: Path) -> None:
    address = parse_address("postgresql://me@host/db", tmp_path)
    driver = "" if find_spec("psycopg2") else "+psycopg"
    assert address.uri == f"postgresql{driver}://me@host/db"
    assert parse_address("mysql+pymysql://host/db", tmp_path).uri == "mysql+pymysql://host/db"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se:cr@et@host/db", "postgresql://me:***@host/db"),
        ("no route to http://me:secret@host:5000/x?a=b:c@d", "no route to http://me:***@host:5000/x?a=b:c@d"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a:b@c/mlflow.db", "sqlite:////a:b@c/mlflow.db"),
    ],
)
def test_a_password_is_never_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert str(Address(text)) == shown


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite://", "no file is named"),
        ("sqlite:///:memory:", "no file is named"),
        ("file:///x", "file store is not supported"),
        ("runs", "file store is not supported"),
        ("ftp://me:secret@host/x", "unknown scheme 'ftp'"),
    ],
)
def test_an_address_that_means_nothing_is_refused(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(TrackingError, match=message) as caught:
        parse_address(uri, tmp_path)
    assert "use sqlite:///" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("place", ["file", "file/below/mlflow.db"])
def test_a_file_that_is_no_database(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a database, just text that is longer than a header of SQLite would be " * 20)
    with pytest.raises(TrackingError, match="can't be opened"):
        parse_address(f"sqlite:///{tmp_path / place}", tmp_path).probe()


def test_a_new_file_needs_no_folder(tmp_path: Path) -> None:
    parse_address(None, tmp_path / "deep" / "runs").probe()
    assert (tmp_path / "deep" / "runs").is_dir()


@pytest.mark.timeout(60)
def test_a_database_that_is_down(tmp_path: Path, free_port: int) -> None:
    address = parse_address(f"postgresql://me:secret@127.0.0.1:{free_port}/db", tmp_path)
    with pytest.raises(TrackingError, match="can't be reached") as caught:
        address.probe()
    assert "secret" not in str(caught.value)


def test_a_driver_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(TrackingError, match="driver is not installed"):
        parse_address("mysql+pymysql://host/db", tmp_path).probe()
