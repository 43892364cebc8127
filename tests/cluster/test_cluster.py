"""Runs on a cluster of real nodes: what they need, and what happens when they come, go, and break."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import NETWORK, Cluster  # type: ignore[import-not-found]
from tests.conftest import TINY  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow
EPOCHS = 25
"""So many that a trial takes seconds, and does not end before its machine does."""
LONG = ("--seeds", "0", "--set", f"training.epochs={EPOCHS}", "--set", "data.images=200")
MODULE = """\
import os
import socket

from hmtl_ablate import register_pretext_task
from hmtl_ablate.config import RotationOptions
from hmtl_ablate.pretext.rotation import Rotation

BROKEN = "nowhere"


class Turning(Rotation):
    def __init__(self, options, features):
        super().__init__(options, features)
        if socket.gethostname() == BROKEN:
            os._exit(13)


register_pretext_task("turning", RotationOptions, Turning)
"""
TURNING = TINY.replace("SL: {}", "SL: {pretext: {turning: {weight: 0.7}}}").replace(
    "puzzling: {feed: siamese}", "turning: {}"
)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that trains nothing, and two nodes of one core each."""
    cluster = Cluster()
    try:
        for cpus in (0, 1, 1):
            cluster.add(cpus)
        (cluster.shared / "tiny.yaml").write_text(TINY)
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def wide() -> Iterator[Cluster]:
    """A head that trains nothing, and two nodes of two cores each."""
    cluster = Cluster()
    try:
        for cpus in (0, 2, 2):
            cluster.add(cpus)
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def growing() -> Iterator[Cluster]:
    """A head without cores, and an autoscaler that starts nodes of one core, two at most, with Ray's provider for
    tests."""
    head = "f" * 51 + "00000"
    config = {
        "cluster_name": "growing",
        "max_workers": 2,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": head,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        **{key: {} for key in ("auth", "file_mounts")},
        **{key: [] for key in ("initialization_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter")},
        **{f"{kind}setup_commands": [] for kind in ("", "head_", "worker_")},
        **{f"{kind}_start_ray_commands": [] for kind in ("head", "worker")},
        "file_mounts_sync_continuously": False,
    }
    variables = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": head,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head,
    }
    cluster = Cluster()
    try:
        (cluster.shared / "growing.json").write_text(json.dumps(config))
        cluster.add(0, ["--autoscaling-config", cluster.shared / "growing.json"], variables)
        (cluster.shared / "tiny.yaml").write_text(TINY)
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
def apart() -> Iterator[Cluster]:
    """As `cluster`, with a server of object storage on the head, and nothing that the nodes share."""
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "swan-7!lake", "AWS_REGION": "us-east-1"}
    cluster = Cluster({**keys, "AWS_ENDPOINT_URL": f"http://{NETWORK}.1:5000", "XDG_CACHE_HOME": "/tmp/cache"})
    try:
        for cpus in (0, 1, 1):
            cluster.add(cpus)
        (cluster.shared / "tiny.yaml").write_text(TINY)
        words = [sys.executable, "-m", "moto.server", "-H", f"{NETWORK}.1", "-p", "5000"]
        with (cluster.shared / "server.txt").open("wb") as log:
            server = subprocess.Popen(cluster.nodes[0].inside(words), stdout=log, stderr=log)
        make = ["curl", "--silent", "--fail", "--retry", "30", "--retry-all-errors", "--retry-delay", "1"]
        make += ["-X", "PUT", f"http://{NETWORK}.1:5000/faces"]
        subprocess.run(cluster.nodes[0].inside(make), check=True, stdout=subprocess.DEVNULL)
        yield cluster
        server.kill()
        server.wait()
    finally:
        cluster.end()


def run(cluster: Cluster, *words: object) -> subprocess.CompletedProcess[str]:
    """`hmtl-ablate run` on the head."""
    done: subprocess.CompletedProcess[str] = cluster.run(
        ["run", "tiny.yaml", "--address", cluster.address, *words], cluster.shared
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def start(cluster: Cluster, *words: object) -> subprocess.Popen[str]:
    """The same in the background."""
    process: subprocess.Popen[str] = cluster.start(
        ["run", "tiny.yaml", "--address", cluster.address, *words], cluster.shared
    )
    return process


def lab(cluster: Cluster, broken: str) -> tuple[str, str]:
    """A module whose pretext task ends the processes of one node; the words that import it."""
    (cluster.shared / "my_lab.py").write_text(MODULE.replace("nowhere", broken))
    (cluster.shared / "tiny.yaml").write_text(TURNING)
    return ("--import", "my_lab")


def wait_for(what: Callable[[], object], driver: subprocess.Popen[str], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        if driver.poll() is not None:
            raise AssertionError(driver.communicate())
        assert time.monotonic() < deadline
        time.sleep(0.1)


def trained(store: Path) -> list[Path]:
    """The trials with a checkpoint or a result. A history has its line before the checkpoint is written, and a trial
    that dies between the two starts from nothing."""
    files = (*store.glob("trials/*/last.safetensors"), *store.glob("trials/*/result.json"))
    return sorted({path.parent for path in files})


def epochs_of(store: Path) -> list[list[int]]:
    return [
        [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
        for path in sorted(store.glob("trials/*/metrics.jsonl"))
    ]


def test_what_nodes_lack_they_get_or_it_is_said(cluster: Cluster) -> None:
    """The package and the modules of --import they get; libraries, the store and the right versions they must have."""
    apart = run(cluster, "--runs", "/tmp/runs")
    assert apart.returncode == 2, apart.stdout + apart.stderr
    for name in ("node-2", "node-3"):
        assert re.search(rf"{name} \(\S+\): it can't write the folder /tmp/runs of this machine", apart.stderr)

    done = run(cluster, *lab(cluster, broken="nowhere"), "--seeds", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 2 trained" in done.stdout

    (cluster.shared / "tiny.yaml").write_text(TINY)
    stranger = cluster.run(
        ["run", "tiny.yaml", "--address", cluster.address], cluster.shared, {"RAY_AUTH_TOKEN": "0" * 64}
    )
    assert stranger.returncode == 2
    assert "token" in stranger.stderr

    alter_versions(cluster)
    other = run(cluster)
    assert other.returncode == 2
    differing = r"it has Ray 1\.0\.0 and Python 3\.8\.1, and this command Ray \S+ and Python \S+; install"
    assert re.search(differing, other.stderr), other.stderr


def alter_versions(cluster: Cluster) -> None:
    """What the cluster has recorded of its versions."""
    program = (
        "import json, ray, sys; from ray._private.ray_constants import KV_NAMESPACE_CLUSTER as space;"
        "from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY as key;"
        "client = ray._raylet.GcsClient(address=sys.argv[1]); known = json.loads(client.internal_kv_get(key, space));"
        "known.update(ray_version='1.0.0', python_version='3.8.1');"
        "client.internal_kv_put(key, json.dumps(known).encode(), True, space)"
    )
    python = cluster.shared / "python" / "bin" / "python"
    words = cluster.nodes[0].inside([python, "-c", program, cluster.address])
    subprocess.run(words, check=True, timeout=60, env=cluster.variables())


def test_nodes_that_come_and_go(cluster: Cluster) -> None:
    """A node's trial resumes on another when it dies; a new node is used by the same run."""
    store = cluster.shared / "runs"
    driver = start(cluster, *LONG)
    wait_for(lambda: len(trained(store)) == 2, driver)  # one core each: on both nodes
    cluster.nodes[1].kill()
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert re.search(r"it resumes from its last checkpoint \((node lost|crashed), retry 1 of 2", out), out
    assert epochs_of(store) == [list(range(1, EPOCHS + 1))] * 2

    driver = start(cluster, "--seeds", "1,2", *LONG[2:])
    wait_for(lambda: len(trained(store)) == 3, driver)
    cluster.add(1)
    wait_for(lambda: len(trained(store)) == 4 and len(list(store.glob("trials/*/result.json"))) <= 3, driver)
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert epochs_of(store) == [list(range(1, EPOCHS + 1))] * 6


def test_a_node_where_trials_die_is_left_out(cluster: Cluster) -> None:
    words = lab(cluster, broken="node-2")
    done = run(cluster, *words, "--seeds", "0,1,2", "--set", "training.epochs=10", "--set", "data.images=400")
    require_left_out(cluster, done)


def test_a_node_where_workers_of_trials_die_is_left_out(wide: Cluster) -> None:
    """Ray Train places several workers by itself, and tells which one has died."""
    words = lab(wide, broken="node-2")
    done = run(wide, *words, "--seeds", "0,1", "--set", "resources.workers=2", "--set", "training.epochs=10")
    require_left_out(wide, done)


def require_left_out(cluster: Cluster, done: subprocess.CompletedProcess[str]) -> None:
    """After the third crash on node-2 no trial was sent there, and the run and the report say why.

    Two trials run at once: the other one may have been sent before that crash was counted, and is the fourth then."""
    said = r"node-2 \(\S+\) is left out from now on: processes of trials have died there 3 times"
    assert re.search(said, done.stdout), done.stdout
    assert done.returncode in (0, 1)  # 1: one trial has met that node too often
    store = cluster.shared / "runs"
    ends = [path.read_text() for name in ("log", "failure") for path in store.glob(f"trials/*/{name}.txt")]
    crashes = sum(len(re.findall("crashed: the process that trained it", text)) for text in ends)
    assert crashes in (3, 4), done.stdout
    report = cluster.run(["report", "--import", "my_lab"], cluster.shared)
    assert re.search(rf"Last run: {said}", " ".join(report.stdout.split())), report.stdout


@pytest.mark.timeout(1500)  # two minutes on idle cores
def test_a_node_that_joins_and_is_not_fit_is_left_out(cluster: Cluster) -> None:
    (cluster.shared / "old").mkdir()
    (cluster.shared / "old" / "torch.py").write_text("raise ImportError('no torch here')")
    store = cluster.shared / "runs"
    driver = start(cluster, "--seeds", "0,1", *LONG[2:])
    wait_for(lambda: len(trained(store)) == 2, driver, seconds=600)
    cluster.add(4, variables={"PYTHONPATH": str(cluster.shared / "old")})
    out, err = driver.communicate(timeout=600)
    said = r"node-4 \(\S+\) has joined and is left out: ImportError: no torch here; install the libraries"
    assert driver.returncode == 0, out + err
    assert re.search(said, " ".join(out.split())), out
    assert "resumes from its last checkpoint" not in out  # none was placed there
    assert epochs_of(store) == [list(range(1, EPOCHS + 1))] * 4
    report = cluster.run(["report"], cluster.shared)
    assert re.search(rf"Last run: {said}", " ".join(report.stdout.split())), report.stdout


def test_a_run_ends_when_the_head_is_lost_and_resumes_on_another_cluster(cluster: Cluster) -> None:
    store = cluster.shared / "runs"
    driver = start(cluster, *LONG)
    wait_for(lambda: len(trained(store)) == 2, driver)
    cluster.nodes[0].kill_ray()
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 75, out + err
    assert "the same command resumes" in err
    assert "Traceback" not in out + err
    done = cluster.run(["run", "tiny.yaml", *LONG], cluster.shared)
    assert done.returncode == 0, done.stdout + done.stderr
    assert epochs_of(store) == [list(range(1, EPOCHS + 1))] * 2
    assert any("resumes at epoch" in path.read_text() for path in store.glob("trials/*/log.txt"))


def test_workers_on_two_nodes_train_as_one(cluster: Cluster) -> None:
    """Ray Train with gloo: at equal global batch, and without batch norm and dropout, the losses of two workers are
    those of one, in float's tolerance."""
    still = {"model.backbone": "test_convnext", "model.dropout": 0.0, "training.lr": 0.001}
    words = ["--seeds", "0"] + [word for key, value in still.items() for word in ("--set", f"{key}={value}")]
    study = TINY.replace("feed: siamese", "feed: mixed, share: 0.4, dropout: 0.0")
    (cluster.shared / "tiny.yaml").write_text(study)
    for runs, workers in (("one", 1), ("two", 2)):
        done = run(cluster, *words, "--runs", runs, "--set", f"resources.workers={workers}")
        assert done.returncode == 0, done.stdout + done.stderr
    histories = [
        [
            json.loads(line)
            for path in sorted((cluster.shared / runs).glob("trials/*/metrics.jsonl"))
            for line in path.open()
        ]
        for runs in ("one", "two")
    ]
    assert len(histories[0]) == 4
    for one, two in zip(*histories, strict=True):
        assert two["train/loss"] == pytest.approx(one["train/loss"], rel=1e-3)


def test_a_store_in_object_storage_needs_no_shared_folder(apart: Cluster) -> None:
    """A node is lost in the middle: its trial resumes on the other one, from the objects."""
    driver = start(apart, *LONG, "--runs", "s3://faces/runs")
    packs = [apart.nodes[number].folder / "tmp" / f"hmtl-ablate-packs-{os.getuid()}" for number in (1, 2)]
    scratch = [apart.nodes[number].folder / "tmp" for number in (1, 2)]

    def train() -> bool:
        return all(list(folder.glob("hmtl-ablate-run-*/trials/*/last.safetensors")) for folder in scratch)

    wait_for(train, driver)
    assert all(len(list(folder.glob("*/manifest.json"))) == 1 for folder in packs)
    time.sleep(3)  # until the checkpoint has been sent
    apart.nodes[2].kill()
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, out + err
    assert "trials: 2 trained" in out
    assert "swan" not in out + err
    report = apart.run(["report", "--runs", "s3://faces/runs"], apart.shared)
    assert "SL + puzzling" in report.stdout, report.stderr
    (store,) = (apart.nodes[0].folder / "tmp/cache/hmtl-ablate/stores").iterdir()
    assert epochs_of(store) == [list(range(1, EPOCHS + 1))] * 2
    assert any("resumes at epoch" in path.read_text() for path in store.glob("trials/*/log.txt"))


def test_an_autoscaling_cluster_grows_when_asked(growing: Cluster) -> None:
    """It holds no trial when the run begins."""
    refused = run(growing, "--seeds", "0")
    assert refused.returncode == 2
    assert "a trial needs 1 CPU but the cluster has 0 CPU" in refused.stderr
    done = run(growing, "--seeds", "0", "--max-concurrent", "2", "--grow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 2 trained" in done.stdout
