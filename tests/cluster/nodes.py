"""A Ray cluster of several nodes on one machine, as separate as machines are.

Each node has a network, mount, PID and host name namespace of its own: an address, a /tmp, and processes that end with
it. Only the shared folder is the same for all of them. Their Python has all libraries, and not this package.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.conftest import PROGRAM, ROOT, environment  # type: ignore[import-not-found]

NETWORK = "10.213.77"
"""Of the nodes' addresses; no route leads there from outside their namespaces."""
PORT = 6379
STORE_MEMORY = 100 * 10**6
"""Bytes of a node's object store."""


class Node:
    """A Ray node: `ray start --block` in namespaces of its own."""

    def __init__(self, name: str, address: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.name, self.address, self.folder, self.process = name, address, folder, process

    def inside(self, words: Sequence[object]) -> list[str]:
        """A command line that runs a command on this node."""
        (inner,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return ["nsenter", "--target", inner, "--net", "--mount", "--uts", "--pid", *map(str, words)]

    def kill(self) -> None:
        """As a power cut: all of its processes end at once."""
        self.process.kill()
        self.process.wait()

    def kill_ray(self) -> None:
        """End Ray's own processes on it; others that were started there, such as a driver, stay."""
        (inner,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for name in ("gcs_server", "raylet"):
            subprocess.run(["nsenter", "--target", inner, "--pid", "--mount", "pkill", "-KILL", "-x", name], check=True)

    def log(self) -> str:
        return (self.folder / "ray.txt").read_text()


class Cluster:
    """Nodes that share a folder and a network. The first one is the head, and trains no trial."""

    def __init__(self, variables: Mapping[str, str] = {}) -> None:
        self.shared = Path(tempfile.mkdtemp(prefix="hmtl-cluster-", dir="/var/tmp"))
        self.nodes: list[Node] = []
        self._variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), **variables}
        self._prefix = f"hmtl{os.getpid()}"
        self._files: list[IO[bytes]] = []
        self._python = bare_python(self.shared / "python")
        _ip("netns", "add", self._hub)
        _ip("-n", self._hub, "link", "add", "hub", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "hub", "up")

    @property
    def _hub(self) -> str:
        return f"{self._prefix}-hub"

    @property
    def address(self) -> str:
        """Of the head, for --address."""
        return f"{self.nodes[0].address}:{PORT}"

    @property
    def live(self) -> list[Node]:
        """The nodes that were not killed, the head first."""
        return [node for node in self.nodes if node.process.poll() is None]

    def add(self, cpus: float = 1, words: Sequence[object] = (), variables: Mapping[str, str] = {}) -> Node:
        """Start a node, and wait until it has joined. words: more options of `ray start`."""
        number = len(self.nodes) + 1
        name, address = f"{self._prefix}-{number}", f"{NETWORK}.{number}"
        folder = self.shared / f"node-{number}"
        (folder / "tmp").mkdir(parents=True)
        self._connect(name, address, number)
        start = ["start", "--block", "--node-ip-address", address, "--num-cpus", f"{cpus:g}", "--disable-usage-stats"]
        start += ["--object-store-memory", str(STORE_MEMORY)]
        start += ["--head", "--port", str(PORT)] if number == 1 else ["--address", self.address]
        ray = [str(self._python), "-m", "ray.scripts.scripts", *start, *map(str, words)]
        hosts = folder / "hosts"  # PyTorch looks up the node's own name
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{NETWORK}.{n} node-{n}\n" for n in range(1, 255)))
        # the shell is process 1, and stays when Ray ends: a driver on the node is not killed with it
        own = " && ".join(
            [f"hostname node-{number}", f"mount --bind {hosts} /etc/hosts", *_own_tmp(folder / "tmp"), START]
        )
        apart = [
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            own,
            "sh",
        ]
        log = (folder / "ray.txt").open("wb")
        self._files.append(log)
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, *apart, *ray],
            env=self.variables() | dict(variables),
            cwd="/",
            stdout=log,
            stderr=log,
        )
        node = Node(name, address, folder, process)
        self.nodes.append(node)
        self._wait_for(node)
        return node

    def variables(self) -> dict[str, str]:
        """Environment variables of the nodes: without any that lead to this package."""
        return {key: text for key, text in (environment() | self._variables).items() if key != "PYTHONPATH"}

    def driver_variables(self) -> dict[str, str]:
        """Those of `hmtl-ablate` on the head: with the token, and what leads to this package."""
        return {**environment(), **self._variables}

    def start(self, words: Sequence[object], folder: Path, variables: Mapping[str, str] = {}) -> subprocess.Popen[str]:
        """`hmtl-ablate …` on the head, in the background."""
        return subprocess.Popen(
            self.nodes[0].inside(["env", "--chdir", folder, PROGRAM, *words]),
            env=self.driver_variables() | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, words: Sequence[object], folder: Path, variables: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        """`hmtl-ablate …` on the head, to its end."""
        process = self.start(words, folder, variables)
        out, err = process.communicate(timeout=400)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def end(self) -> None:
        """End all nodes, and remove what they have left."""
        for node in self.nodes:
            node.kill()
            subprocess.run(["ip", "netns", "del", node.name], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", self._hub], check=False)
        for file in self._files:
            file.close()
        shutil.rmtree(self.shared, ignore_errors=True)

    def _connect(self, name: str, address: str, number: int) -> None:
        _ip("netns", "add", name)
        _ip("link", "add", "eth", "netns", name, "type", "veth", "peer", "name", f"to{number}", "netns", self._hub)
        _ip("-n", self._hub, "link", "set", f"to{number}", "master", "hub")
        _ip("-n", self._hub, "link", "set", f"to{number}", "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth")
        _ip("-n", name, "link", "set", "eth", "up")
        _ip("-n", name, "link", "set", "lo", "up")

    def _wait_for(self, node: Node, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while "Ray runtime started" not in node.log():
            assert node.process.poll() is None, node.log()
            assert time.monotonic() < deadline, node.log()
            time.sleep(0.1)


START = '{ "$@"; sleep infinity; }'


def bare_python(folder: Path) -> Path:
    """A Python with the libraries of this one, and without what is installed to be edited: this package."""
    venv.create(folder, with_pip=False)
    (libraries,) = folder.glob("lib/python*/site-packages")
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # whose own .pth files are not read
    python = folder / "bin" / "python"
    words, clean = [str(python), "-c", "import ray, hmtl_ablate"], {**os.environ, "PYTHONPATH": ""}
    known = subprocess.run(words, capture_output=True, text=True, cwd="/", env=clean)
    assert "No module named 'hmtl_ablate'" in known.stderr, known.stderr
    return python


def _own_tmp(folder: Path) -> list[str]:
    """Shell commands that put a folder in the place of /tmp, without hiding a checkout or an environment there."""
    needed = [path for path in {str(ROOT), sys.prefix} if path.startswith("/tmp/")]
    inside = {path: folder / Path(path).relative_to("/tmp") for path in needed}
    shown = [f"mkdir -p '{copy}' && mount --bind '{path}' '{copy}'" for path, copy in inside.items()]
    return [*shown, f"mount --rbind {folder} /tmp"]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}(the test needs root and iproute2)"
