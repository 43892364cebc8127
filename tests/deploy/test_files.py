"""The files of deploy/ are what the programs that read them take, and fit each other and this package."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from ruamel.yaml import YAML

from hmtl_ablate.cli import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RAY = re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]  # type: ignore[index]


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def parsed(name: str) -> Any:
    return YAML(typ="safe").load(read(name))


def options_of(line: str) -> dict[str, Any]:
    """Options of an `hmtl-ablate run` line, checked by the command itself."""
    commands: Any = typer.main.get_command(app)
    program, name, *words = shlex.split(line)
    assert (program, name) == ("hmtl-ablate", "run")
    return dict(commands.commands[name].make_context(name, words).params)


def check_ray_start(line: str) -> dict[str, Any]:
    """Options of the `ray start` within a shell line, checked by Ray's own command."""
    from ray.scripts.scripts import start

    return dict(start.make_context("start", shlex.split(line.partition("ray start ")[2])).params)


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_no_file_names_a_host_or_a_password_and_the_page_shows_each(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"\w+://(?!/)[^\s/]+", text) == []
    assert re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text) == []
    assert re.findall(r"(?i)passw\w*\s*[:=]\s*\S+", text) == []
    assert path.stem.startswith("Dockerfile") or f"deploy/{path.name}" in (ROOT / "docs" / "clusters.md").read_text()


# --- Ray's cluster launcher


def test_ray_takes_the_cluster_file() -> None:
    """Ray's own schema and completion, as `ray up` applies them."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(parsed("ray-cluster.yaml"))
    validate_config(config)
    workers = len(config["provider"]["worker_ips"])
    (kind,) = config["available_node_types"].values()
    assert (kind["min_workers"], kind["max_workers"]) == (workers, workers)  # none is taken away when idle
    with pytest.raises(jsonschema.ValidationError, match="setup_command'"):
        validate_config({**config, "setup_command": []})


def test_the_cluster_launcher_starts_ray_with_a_token() -> None:
    config = parsed("ray-cluster.yaml")
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    *_, head = config["head_start_ray_commands"]
    *_, worker = config["worker_start_ray_commands"]
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "RAY_enable_autoscaler_v2=0" in head  # the other one starts no workers of this provider
    assert check_ray_start(head)["head"] is True
    address = check_ray_start(worker)["address"]
    assert address == f"$RAY_HEAD_IP:{check_ray_start(head)['port']}"


def test_a_tilde_is_never_quoted() -> None:
    """A shell does not expand it then, and pip looks for a folder of that name."""
    config = parsed("ray-cluster.yaml")
    lines = [line for key, lines in config.items() if key.endswith("commands") for line in lines]
    assert len(lines) >= 5
    assert [line for line in lines if re.search(r"""['"]~""", line)] == []


# --- KubeRay


def group(*required: str, **more: Any) -> dict[str, Any]:
    """Schema of an object without unknown fields: the API server drops them silently."""
    return {"type": "object", "additionalProperties": False, "required": [*required], "properties": more}


TEXT, WHOLE, QUANTITY = (
    {"type": "string"},
    {"type": "integer", "minimum": 0},
    {"type": "string", "pattern": r"^\d+(Gi)?$"},
)
AMOUNTS = group("cpu", "memory", **{"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu": QUANTITY})
CONTAINER = group(
    "name",
    "image",
    "resources",
    "volumeMounts",
    name=TEXT,
    image=TEXT,
    envFrom={"type": "array", "items": group("secretRef", secretRef=group("name", name=TEXT))},
    ports={"type": "array", "items": group("name", "containerPort", name=TEXT, containerPort=WHOLE)},
    resources=group("requests", "limits", requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts={"type": "array", "items": group("name", "mountPath", name=TEXT, mountPath=TEXT)},
)
POD = group(
    "containers",
    "volumes",
    securityContext=group("runAsUser", runAsNonRoot={"const": True}, runAsUser=WHOLE, fsGroup=WHOLE),
    containers={"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
    volumes={
        "type": "array",
        "items": group(
            "name", "persistentVolumeClaim", name=TEXT, persistentVolumeClaim=group("claimName", claimName=TEXT)
        ),
    },
)
START = {"type": "object", "additionalProperties": TEXT}
TEMPLATE = group("spec", spec=POD)
WORKERS = group(
    "groupName",
    "replicas",
    "rayStartParams",
    "template",
    groupName=TEXT,
    replicas=WHOLE,
    minReplicas=WHOLE,
    maxReplicas=WHOLE,
    rayStartParams=START,
    template=TEMPLATE,
)
RAYJOB = group(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=group("name", name={"type": "string", "pattern": r"^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$"}),
    spec=group(
        "entrypoint",
        "rayClusterSpec",
        entrypoint=TEXT,
        backoffLimit=WHOLE,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=WHOLE,
        preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
        rayClusterSpec=group(
            "rayVersion",
            "headGroupSpec",
            "workerGroupSpecs",
            rayVersion=TEXT,
            authOptions=group("mode", mode={"enum": ["token", "disabled"]}),
            headGroupSpec=group("rayStartParams", "template", rayStartParams=START, template=TEMPLATE),
            workerGroupSpecs={"type": "array", "items": WORKERS, "minItems": 1},
        ),
    ),
)
"""Those fields of KubeRay 1.7's RayJob that deploy/rayjob.yaml may have."""


def pods() -> list[dict[str, Any]]:
    spec = parsed("rayjob.yaml")["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [one["template"]["spec"] for one in groups]


def test_the_rayjob_has_the_fields_of_its_kind() -> None:
    job = parsed("rayjob.yaml")
    jsonschema.validate(job, RAYJOB)
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAYJOB)


def test_the_rayjob_runs_a_study_that_is_in_the_image_on_a_store_that_all_pods_see() -> None:
    spec = parsed("rayjob.yaml")["spec"]
    options = options_of(spec["entrypoint"])
    assert options["address"] == "auto"
    inside = Path(options["file"]).relative_to("/opt/hmtl-ablate")
    assert (ROOT / inside).is_file()
    (claim,) = {pod["volumes"][0]["persistentVolumeClaim"]["claimName"] for pod in pods()}
    store = parsed("rayjob-store.yaml")
    assert (store["kind"], store["metadata"]["name"]) == ("PersistentVolumeClaim", claim)
    assert store["spec"]["accessModes"] == ["ReadWriteMany"]
    (shared,) = {mount["mountPath"] for pod in pods() for mount in pod["containers"][0]["volumeMounts"]}
    assert Path(options["runs"]).is_relative_to(shared)
    assert [data for data in options["datasets"] if not Path(data.partition("=")[2]).is_relative_to(shared)] == []


def test_all_pods_of_the_rayjob_have_the_image_s_ray_and_user() -> None:
    cluster = parsed("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY
    assert cluster["authOptions"]["mode"] == "token"
    assert len({pod["containers"][0]["image"] for pod in pods()}) == 1
    user = re.search(r"^ARG USER_ID=(\d+)$", read("Dockerfile"), re.MULTILINE)
    assert user is not None
    assert {pod["securityContext"]["runAsUser"] for pod in pods()} == {int(user[1])}


def test_only_the_head_knows_the_database_and_only_workers_train() -> None:
    """MLflow and Optuna are written by the command; a head with CPUs would get trials without a GPU."""
    cluster = parsed("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    head, *workers = [pod["containers"][0] for pod in pods()]
    assert [source["secretRef"]["name"] for source in head["envFrom"]] == ["hmtl-postgres"]
    assert all("envFrom" not in worker for worker in workers)
    assert all(worker["resources"]["limits"]["nvidia.com/gpu"] == "1" for worker in workers)
    for container in (head, *workers):
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


# --- Dockerfile

KNOWN = {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """Word and rest of each instruction, lines joined, as Docker reads them."""
    lines = [line for line in read("Dockerfile").splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in joined.splitlines()]


def test_every_instruction_is_known_and_the_base_can_be_chosen() -> None:
    found = instructions()
    assert {word for word, _ in found} == KNOWN
    assert found[0] == ("ARG", "BASE=python:3.11-slim")
    assert found[1] == ("FROM", "${BASE}")


def test_the_image_copies_what_the_build_may_read() -> None:
    allowed = {line[1:] for line in read("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    sources = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {source.partition("/")[0] for source in sources} == allowed


def test_the_image_installs_the_locked_versions_and_ends_as_a_user() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert "-c requirements.lock" in installs[0]
    assert "--no-deps" in installs[1]
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users == ["${USER_ID}"]  # a number: Kubernetes' runAsNonRoot can't check a name
    after = [word for word, _ in instructions()][[word for word, _ in instructions()].index("USER") :]
    assert after == ["USER", "CMD"]
