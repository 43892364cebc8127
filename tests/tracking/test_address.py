"""Addresses: what they mean, what is shown of them, and which are refused, all without MLflow."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking.address import Address, hidden, note_environment, parse_address, shown

SSL = "postgresql://me@host/db?sslmode=require&sslpassword=***"


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
    ("text", "expected"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgres://me:secret@host/db", "postgres://me:***@host/db"),
        ("mysql+pymysql://me:secret@host:3306/db", "mysql+pymysql://me:***@host:3306/db"),
        ("postgresql://me:secret/secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:secret?x#secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se:cr@et@host/db", "postgresql://***@host/db"),
        ("postgresql://me:secret@host:port/db", "postgresql://***@host:port/db"),
        ("postgresql:/me:secret@host/db", "postgresql://***@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?password=***&user=me"),
        ("postgresql://me@host/db?sslmode=require&sslpassword=secret", SSL),
        ("https://me:secret@host:5000/x", "https://me:***@host:5000/x"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a:b@c/mlflow.db", "sqlite:////a:b@c/mlflow.db"),
    ],
)
def test_a_password_is_never_shown(text: str, expected: str) -> None:
    """Fault C11."""
    address = Address(text)
    assert (shown(text), str(address)) == (expected, expected)
    for written in (text, text.upper() if "secret" not in text else text, repr(address)):
        assert "secret" not in address.hidden(f"(psycopg.OperationalError) no route to {written!r}: x")


def test_a_message_shows_no_password() -> None:
    """Fault C11: a driver's own words may hold the password alone, decoded or encoded, or another URL."""
    uri = "postgresql://me:p%40ss%2Fword@host/db?sslpassword=other"
    for spelling in ("p%40ss%2Fword", "p@ss/word", "other", uri):
        found = hidden(f"authentication of {spelling} failed; proxy http://me:third@proxy:80", uri)
        assert not {"p%40ss", "p@ss", "other", "third"} & set(re.split(r"[ :/?=&]", found))
    assert hidden("no route to http://me:secret@host:5000/x?a=b:c@d") == "no route to http://me:***@host:5000/x?a=b:c@d"


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


def test_an_address_in_the_environment_is_not_used_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault C17."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000")
    assert parse_address(None, tmp_path).sqlite_file == tmp_path / "mlflow.db"
    note_environment("http://other:5000")
    note_environment(None)
    assert caplog.messages == [
        "MLFLOW_TRACKING_URI (https://me:***@host:5000) is not used; to use it, name it with --tracking-uri"
    ]


def test_a_driver_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(TrackingError, match="driver is not installed"):
        parse_address("mysql+pymysql://host/db", tmp_path).probe()
