"""deploy/slurm.sh with a Slurm that writes down how it was called: what it starts, and what it makes of the end."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, environment  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm.sh"
WRITE_DOWN = '#!/bin/bash\nprintf "%q " "${0##*/}" "$@" >> "$CALLS"; echo >> "$CALLS"\n'
PROGRAMS = {
    "scontrol": '[[ $1 != show ]] || printf "node-a\\nnode-b\\n"',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    # as `ray symmetric-run` on the head: the command behind `--`; 0, too, when Ray does not start
    "ray": '[[ -z ${NO_RAY:-} ]] || exit 0; while [[ $1 != -- ]]; do shift; done; exec "${@:2}"',
    "hmtl-ablate": 'stat -c %a "$RAY_AUTH_TOKEN_PATH" "${RAY_AUTH_TOKEN_PATH%/*}" >> "$CALLS"; exit "${CODE:-0}"',
}


@dataclass
class Job:
    """A job's folder, and the programs that it finds."""

    folder: Path
    lines: list[list[str]] = field(default_factory=list)
    """Words of each call of a program."""

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        calls = self.folder / "calls.txt"
        calls.unlink(missing_ok=True)
        slurm = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_JOB_NUM_NODES": "2"}
        slurm |= {"SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "4", "RUNS": str(self.folder / "my runs")}
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            [SCRIPT, *words],
            cwd=self.folder,
            env=environment() | {"PATH": path, "CALLS": str(calls)} | slurm | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.lines = [shlex.split(line) for line in calls.read_text().splitlines()] if calls.exists() else []
        return done

    def call(self, program: str) -> list[str]:
        """Words of the only call of a program."""
        (line,) = [line for line in self.lines if line[0] == program]
        return line[1:]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "bin").mkdir()
    for name, code in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"{WRITE_DOWN}{code}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return Job(tmp_path)


def test_the_study_runs_on_the_cluster_of_all_nodes(job: Job) -> None:
    done = job.run("my study.yaml", "--profile", "paper")
    assert (done.returncode, done.stderr) == (0, "")
    ray = job.call("ray")
    assert ray[:5] == ["symmetric-run", "--address", "node-a:6379", "--min-nodes", "2"]
    assert ray[5 : ray.index("--")] == ["--num-cpus=16", "--num-gpus=4"]
    words = ["run", "my study.yaml", "--profile", "paper", "--address", "node-a:6379", "--runs"]
    assert job.call("hmtl-ablate") == [*words, str(job.folder / "my runs")]


def test_ray_takes_what_the_script_says(job: Job) -> None:
    """Ray's own parser: options before `--` are its own or those of `ray start`."""
    from ray.scripts.scripts import start
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    job.run("tiny.yaml")
    words = job.call("ray")[1:]
    rest = curate_and_validate_ray_start_args(words[: words.index("--")])
    known = start.make_context("start", ["--address", "node-a:6379", "--block", *rest]).params
    assert (known["num_cpus"], known["num_gpus"]) == (16, 4)


def test_the_token_is_in_a_file_of_this_user_and_nowhere_else(job: Job) -> None:
    done = job.run("tiny.yaml")
    assert [line for line in job.lines if line[0] in ("600", "700")] == [["600"], ["700"]]
    assert list((job.folder / "my runs").iterdir()) == []  # it ends with the job
    assert done.stdout == ""


@pytest.mark.parametrize(("code", "restarts", "again"), [(0, 0, 0), (1, 0, 0), (75, 0, 1), (75, 2, 1), (75, 3, 0)])
def test_a_lost_cluster_is_tried_again_and_nothing_else(job: Job, code: int, restarts: int, again: int) -> None:
    done = job.run("tiny.yaml", CODE=str(code), SLURM_RESTART_COUNT=str(restarts))
    assert done.returncode == code
    assert job.lines.count(["scontrol", "requeue", "77"]) == again


def test_a_ray_that_does_not_start_is_an_error(job: Job) -> None:
    """`ray symmetric-run` ends with 0 then: the job would count as completed."""
    done = job.run("tiny.yaml", NO_RAY="1")
    assert done.returncode == 2
    assert "Ray did not start on all nodes within 600 s" in done.stderr


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        ([], {}, "name a study: sbatch deploy/slurm.sh STUDY.yaml"),
        (["tiny.yaml"], {"RUNS": ""}, "set RUNS to the store"),
        (["tiny.yaml"], {"PATH": "/usr/bin:/bin"}, "ray is not found; activate its environment before sbatch"),
    ],
)
def test_what_is_missing_is_said(job: Job, words: list[str], variables: dict[str, str], message: str) -> None:
    done = job.run(*words, **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert job.lines == []


def test_a_study_on_a_real_ray_of_one_node(job: Job, tiny: Path) -> None:
    """In namespaces of its own: `ray symmetric-run` refuses to start where a Ray runs, and ends every Ray it finds."""
    for name in ("ray", "hmtl-ablate"):
        (job.folder / "bin" / name).unlink()
        (job.folder / "bin" / name).symlink_to(PROGRAM.parent / name)
    store = job.folder / "runs"
    slurm = {"SLURM_JOB_ID": f"t{os.getpid()}", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "2"}
    slurm |= {"HEAD": "127.0.0.1", "RUNS": str(store), "CALLS": str(job.folder / "calls.txt")}
    apart = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*apart, "bash", "-c", 'ip link set lo up && "$@"', "bash", SCRIPT, str(tiny), "--seeds", "0"],
        cwd=job.folder,
        env=environment() | {"PATH": f"{job.folder / 'bin'}:{os.environ['PATH']}"} | slurm,
        capture_output=True,
        text=True,
        timeout=400,
    )
    shutil.rmtree(f"/tmp/hmtl-{slurm['SLURM_JOB_ID']}", ignore_errors=True)  # Ray's logs
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 2 trained" in done.stdout
    assert list(store.glob(".slurm-*")) == []
