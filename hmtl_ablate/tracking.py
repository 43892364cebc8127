"""MLflow: where every curve, result and picture is logged, and where the report reads them.

One experiment, `hmtl-ablate`; a parent run a study, a child run a trial. Everything is found again by its tags, so a
study that is run again continues its runs. Uses `MlflowClient` only: the fluent API would pick up MLFLOW_RUN_ID.

    tracking = open_tracking(None, Path("runs"))
    parent = tracking.study_run("puzzling", "quick", "rendered", tags={...}, study_text=text)
    run_id = tracking.trial_run(parent, "sl · seed 0", trial_id=..., variant="sl", tags={...}, params={...})
    tracking.log_epochs(run_id, history)
    tracking.finish_trial(run_id, status="finished", metrics={...}, tags={...}, artifacts={"confusion.png": path})
"""

from __future__ import annotations

import filecmp
import json
import logging
import math
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from hmtl_ablate.errors import TrackingError

EXPERIMENT = "hmtl-ablate"
PROXY = "mlflow-artifacts:/"
SQLITE = "sqlite:///"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
HOST = "127.0.0.1"
START_LIMIT = 120  # seconds; MLflow's server answers after 16 to 30 s on two cores
PARAM_LENGTH, TAG_LENGTH = 500, 8000  # characters; MLflow refuses longer tags
PARAMS_A_BATCH, TAGS_A_BATCH = 100, 100  # MLflow's own limits
ENDS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}

StudyStatus = Literal["FINISHED", "KILLED", "FAILED"]
TrialStatus = Literal["finished", "pruned", "failed"]


def open_tracking(uri: str | None, store: Path) -> Tracking:
    """Open MLflow at `uri`, by default the SQLite file <store>/mlflow.db; schema and experiment are made when missing.

    uri: sqlite:///FILE, postgresql://…, mysql+pymysql://…, or the http(s) address of an MLflow server.
    Raises TrackingError within 30 s when the address can't be used.
    """
    address = _address(uri, store)
    # MLflow reads these when it is imported or used; someone who sets them otherwise is obeyed
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    database = _is_database(address)
    if database:
        _probe_database(address)
    with _talking(f"MLflow at {_shown(address)} can't be used"), _quiet(), _impatient():
        from mlflow import MlflowClient

        if database:
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            # made here first because the client's own store would give MLflow's default experiment an absolute path
            SqlAlchemyStore(address, PROXY)
        client = MlflowClient(address, address)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            place = PROXY + EXPERIMENT if database else None
            client.create_experiment(EXPERIMENT, artifact_location=place)
            experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"the experiment {EXPERIMENT!r} at {_shown(address)} was deleted in MLflow\n"
            f"bring it back: mlflow experiments restore --experiment-id {experiment.experiment_id}, "
            "or use another --runs folder"
        )
    return Tracking(client, experiment.experiment_id, store, _shown(address), local=database)


class Tracking:
    """An open MLflow store; made by `open_tracking`. Every method raises TrackingError when MLflow refuses.

    client: the MlflowClient; experiment_id: of the experiment `hmtl-ablate`.
    """

    def __init__(self, client: Any, experiment_id: str, store: Path, shown: str, *, local: bool) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self._store = store
        self._shown = shown
        self._local = local
        self._epochs: dict[str, int] = {}  # run_id -> the last epoch that MLflow has

    def study_run(self, name: str, profile: str, data: str, *, tags: Mapping[str, str], study_text: str) -> str:
        """The parent run of (study, profile, data), found again or made; its tags and study file are brought up to
        date and it counts as running. Returns its run_id."""
        own = {"hmtl.kind": "study", "hmtl.study": name, "hmtl.profile": profile, "hmtl.data": data}
        with self._logging():
            run = self._find("tags.`hmtl.kind` = 'study'", own)
            if run is None:
                run = self._create_run(f"{name} ({profile}, {data})", {**tags, **own})
            elif run.info.status != "RUNNING":
                self.client.update_run(run.info.run_id, status="RUNNING")
            self._set_tags(run, {**tags, **own})
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "study.yaml"
                file.write_text(study_text, encoding="utf-8")
                self._put(run, "study.yaml", file)
        return str(run.info.run_id)

    def trial_run(
        self, parent: str, name: str, *, trial_id: str, variant: str, tags: Mapping[str, str], params: Mapping[str, Any]
    ) -> str:
        """The child run of (parent, trial_id, variant), found again or made. Returns its run_id.

        Parameters are written once, values cut at 500 characters; tags are brought up to date. A run that had ended
        counts as running again when `tags` say `hmtl.status: running`; a new one always does.
        """
        own = {"hmtl.kind": "trial", "mlflow.parentRunId": parent, "hmtl.trial_id": trial_id, "hmtl.variant": variant}
        with self._logging():
            run = self._find(f"tags.`hmtl.trial_id` = '{trial_id}'", own)
            if run is None:
                run = self._create_run(name, {**tags, **own, "hmtl.status": "running"})
            elif tags.get("hmtl.status") == "running" and run.info.status != "RUNNING":
                self.client.update_run(run.info.run_id, status="RUNNING")
            self._set_tags(run, {**tags, **own})
            self._set_params(run, params)
        return str(run.info.run_id)

    def log_epochs(self, run_id: str, history: Sequence[Mapping[str, float]]) -> None:
        """Write the epochs that MLflow does not have yet, one batch an epoch, step = epoch.

        history: a dict an epoch with "epoch" (1, 2, …) and its metrics; NaN and infinite values are left out.
        """
        from mlflow.entities import Metric

        with self._logging():
            # taken out first: after a failed write it is not known what MLflow has, so it is read again
            last = self._epochs.pop(run_id, None)
            if last is None:
                last = self._last_epoch(self.client.get_run(run_id))
            for row in sorted(history, key=lambda row: row["epoch"]):
                step = int(row["epoch"])
                if step > last:
                    now = _now()
                    self.client.log_batch(
                        run_id,
                        metrics=[
                            Metric(_key(key), float(value), now, step) for key, value in row.items() if _finite(value)
                        ],
                    )
                    last = step
            self._epochs[run_id] = last

    def finish_trial(
        self,
        run_id: str,
        *,
        status: TrialStatus,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Mapping[str, Path],
    ) -> None:
        """End a trial's run. A second call with the same status and metrics writes no metric again.

        metrics: e.g. "best/val/accuracy", "test/accuracy"; NaN and infinite values are left out.
        artifacts: path in the run -> local file.
        """
        from mlflow.entities import Metric

        end = ENDS[status]
        with self._logging():
            run = self.client.get_run(run_id)
            # the last epoch as step: "seconds" and "image_passes" are curves too, and the last step is what counts
            now, step = _now(), self._last_epoch(run)
            wanted = {_key(key): float(value) for key, value in metrics.items() if _finite(value)}
            fresh = [
                Metric(key, value, now, step) for key, value in wanted.items() if run.data.metrics.get(key) != value
            ]
            settled = run.info.status == end and not fresh
            if self._is_ours(run) or not settled:
                for path, file in artifacts.items():
                    self._put(run, path, file)
            if fresh:
                self.client.log_batch(run_id, metrics=fresh)
            self._set_tags(run, {**tags, "hmtl.status": status})
            if run.info.status != end:
                self.client.set_terminated(run_id, status=end)

    def finish_study(
        self, run_id: str, status: StudyStatus = "FINISHED", tags: Mapping[str, str] | None = None
    ) -> None:
        """End a study's run."""
        with self._logging():
            run = self.client.get_run(run_id)
            self._set_tags(run, tags or {})
            if run.info.status != status:
                self.client.set_terminated(run_id, status=status)

    def _logging(self) -> Any:
        return _talking(f"MLflow at {self._shown} does not take the results")

    def _find(self, filter_string: str, tags: Mapping[str, str]) -> Any | None:
        """The oldest run with these tags. Compared here, not in the filter, which can't quote every name."""
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                filter_string=filter_string,
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            for run in page:
                if all(run.data.tags.get(key) == value for key, value in tags.items()):
                    return run
            token = page.token
            if not token:
                return None

    def _create_run(self, name: str, tags: Mapping[str, str]) -> Any:
        """A new run, there with all of its tags or not at all: a driver may be killed at any time."""
        return self.client.create_run(self.experiment_id, tags=_texts(tags), run_name=name)

    def _set_tags(self, run: Any, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        changed = [RunTag(key, text) for key, text in _texts(tags).items() if run.data.tags.get(key) != text]
        for start in range(0, len(changed), TAGS_A_BATCH):
            self.client.log_batch(run.info.run_id, tags=changed[start : start + TAGS_A_BATCH])

    def _set_params(self, run: Any, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        missing = [
            Param(_key(key), str(value)[:PARAM_LENGTH])
            for key, value in params.items()
            if _key(key) not in run.data.params
        ]
        for start in range(0, len(missing), PARAMS_A_BATCH):
            self.client.log_batch(run.info.run_id, params=missing[start : start + PARAMS_A_BATCH])

    def _last_epoch(self, run: Any) -> int:
        return int(run.data.metrics.get("epoch", 0))

    def _is_ours(self, run: Any) -> bool:
        return self._local and run.info.artifact_uri.startswith(PROXY)

    def _put(self, run: Any, path: str, file: Path) -> None:
        """Keep a file as an artifact. MLflow's client would need a running server for `mlflow-artifacts:` places, so
        with a database it is copied to where `hmtl-ablate ui` serves it from."""
        if not self._is_ours(run):
            with tempfile.TemporaryDirectory() as folder:
                named = Path(folder) / PurePosixPath(path).name  # MLflow names an artifact after the local file
                shutil.copyfile(file, named)
                parent = str(PurePosixPath(path).parent)
                self.client.log_artifact(run.info.run_id, str(named), None if parent == "." else parent)
            return
        inside = run.info.artifact_uri.removeprefix(PROXY).lstrip("/")
        target = _artifacts(self._store) / inside / path
        if target.is_file() and filecmp.cmp(file, target, shallow=False):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".part")
        shutil.copyfile(file, unfinished)
        unfinished.replace(target)


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(value)[:TAG_LENGTH] for key, value in tags.items()}


def serve_ui(uri: str | None, store: Path, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve MLflow's own pages on 127.0.0.1:`port` until Ctrl-C or SIGTERM, then end the server and its children.

    `on_ready` gets the address of the experiment's page once the server answers, after 16 to 30 s.
    Raises TrackingError for a busy port, a store without runs, or a server that dies.
    """
    address = _address(uri, store)
    if not _is_database(address):
        raise TrackingError(f"{_shown(address)} is a server already: open it in a browser")
    if address.startswith(SQLITE) and not Path(address.removeprefix(SQLITE)).is_file():
        raise TrackingError(
            f"{address.removeprefix(SQLITE)}: no runs yet\n"
            "make some: hmtl-ablate run STUDY, or name another store with --runs"
        )
    _probe_database(address)
    _probe_port(port)
    # not a file in the store, which may be read-only
    with tempfile.TemporaryFile() as log, _terminable():
        server = _start_server(address, store, port, log)
        try:
            _wait_until_up(server, port, log)
            on_ready(_page(port))
            server.wait()
            raise TrackingError(f"MLflow's server ended by itself (exit code {server.returncode}):\n{_last_lines(log)}")
        except KeyboardInterrupt:
            pass
        finally:
            _end_group(server)


def _start_server(address: str, store: Path, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "_MLFLOW_"))}
    environment |= {
        "MLFLOW_BACKEND_STORE_URI": address,  # not an argument: it may hold a password
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--serve-artifacts",
        "--artifacts-destination",
        _artifacts(store).as_uri(),
    ]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=tempfile.gettempdir(),
        start_new_session=True,
    )


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while _get(f"http://{HOST}:{port}/health") is None:
        if server.poll() is not None:
            raise TrackingError(f"MLflow's server does not start (exit code {server.returncode}):\n{_last_lines(log)}")
        if time.monotonic() > deadline:
            raise TrackingError(
                f"MLflow's server does not answer on port {port} after {START_LIMIT} s:\n{_last_lines(log)}"
            )
        time.sleep(0.3)


def _page(port: int) -> str:
    """The page of the runs; an experiment's own page would be MLflow's overview of language models."""
    root = f"http://{HOST}:{port}/"
    answer = _get(f"{root}api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
    if answer is None:
        return root
    number = json.loads(answer)["experiment"]["experiment_id"]
    return f"{root}#/experiments/{number}/runs?workflowType=machine_learning"


def _get(address: str) -> bytes | None:
    """The body, or None when there is no good answer. A proxy of the environment is not for this machine."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=10) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def _last_lines(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").strip().splitlines()[-15:])


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: they are a process group of their own."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and _group_lives(server):
            time.sleep(0.1)
    server.wait()


def _group_lives(server: subprocess.Popen[bytes]) -> bool:
    server.poll()
    try:
        os.killpg(server.pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM acts like Ctrl-C; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _probe_port(port: int) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise TrackingError(
                f"port {port} can't be used ({error}); another program may be using it\nchoose another with --port"
            ) from error


def _address(uri: str | None, store: Path) -> str:
    """The full MLflow address; TrackingError for one that MLflow or this package can't use."""
    if uri is None:
        return f"{SQLITE}{store.resolve() / 'mlflow.db'}"
    scheme = uri.partition("://")[0].partition("+")[0].lower() if "://" in uri else ""
    advice = f"use sqlite:///FILE (the default is {SQLITE}{store / 'mlflow.db'}), postgresql://… or http(s)://…"
    if scheme == "sqlite":
        name = uri.removeprefix(SQLITE)
        if not uri.startswith(SQLITE) or name in ("", ":memory:"):
            raise TrackingError(f"tracking address {uri!r}: no file is named\n{advice}")
        return f"{SQLITE}{Path(name).resolve()}"
    if scheme in ("http", "https"):
        return uri
    if scheme in DATABASES:
        if uri.startswith("postgresql://") and find_spec("psycopg2") is None:
            return uri.replace("postgresql://", "postgresql+psycopg://", 1)  # the driver of the extra `postgres`
        return uri
    what = "MLflow's file store is not supported" if scheme in ("", "file") else f"unknown scheme {scheme!r}"
    raise TrackingError(f"tracking address {_shown(uri)!r}: {what}\n{advice}")


def _is_database(address: str) -> bool:
    return not address.startswith(("http://", "https://"))


def _shown(address: str) -> str:
    """The address without its password."""
    return re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", address)


def _probe_database(address: str) -> None:
    """Touch the database before MLflow does: MLflow tries a dead one ten times, for many minutes."""
    if address.startswith(SQLITE):
        _probe_sqlite(Path(address.removeprefix(SQLITE)))
        return
    import sqlalchemy

    try:
        seconds = {"timeout": 10} if address.startswith("mssql") else {"connect_timeout": 10}
        engine = sqlalchemy.create_engine(address, connect_args=seconds)
        with engine.connect():
            pass
        engine.dispose()
    except ImportError as error:
        raise TrackingError(
            f"{_shown(address)}: the database's driver is not installed ({error})\n"
            "for PostgreSQL: pip install 'hmtl-ablate[postgres]'"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip()
        raise TrackingError(
            f"MLflow's database {_shown(address)} can't be reached: {reason}\n"
            "check --tracking-uri and that the database is up"
        ) from error


def _probe_sqlite(file: Path) -> None:
    try:
        exists = file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=10)) as connection:
            # an existing file is only read, so that the report works on a store that may not be written
            connection.execute("SELECT count(*) FROM sqlite_master" if exists else "BEGIN IMMEDIATE")
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"MLflow's file {file} can't be opened: {error}\n"
            "check that the folder may be written and the file is MLflow's, or name another with "
            "--runs or --tracking-uri sqlite:///FILE"
        ) from error


def _artifacts(store: Path) -> Path:
    return store.resolve() / "artifacts"


@contextmanager
def _talking(what: str) -> Iterator[None]:
    """MLflow's errors, and those of files on the way to it, become TrackingErrors."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        cause = re.search(r"\(Caused by (.+)\)$", first)  # what urllib3 hides behind a long address
        raise TrackingError(
            f"{what}: {_shown(cause[1] if cause else first)[:1000]}\n"
            "check --tracking-uri and --runs, and that MLflow's server or database is up"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow and alembic tell of each step of a schema's creation, and alembic's own settings undo loggers' levels."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def _impatient() -> Iterator[None]:
    """A dead server is told within 30 s when it is opened; later on MLflow's own, longer patience holds."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _key(name: str) -> str:
    """MLflow takes letters, digits and `/_-. :` in names; a class folder may be called anything."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _now() -> int:
    return int(time.time() * 1000)
