"""The address of a Ray cluster: asked within seconds whether a cluster is there and lets us in.

`ray.init` tries for a minute, and its message is the same whether nothing is there, something else is, or a token is
missing.
"""

from __future__ import annotations

import os
import socket

import grpc

from hmtl_ablate.errors import ClusterError

ANSWER = 8.0
"""Seconds in which a cluster must answer."""
CLUSTER = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""What a cluster's head answers."""
CLIENT = "/ray.rpc.RayletDriver/ClusterInfo"
"""What its server for `ray://` answers."""
_ADVICE = "start the cluster (ray start --head), or leave --address out to use this machine"


def check_address(address: str) -> None:
    """Raise ClusterError when there is no Ray cluster at `address`, or it wants a token that this process lacks."""
    if address == "local":
        return
    place = _known() if address == "auto" else address
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ClusterError(f"--address {address}: write HOST:PORT, ray://HOST:PORT, or auto")
    shown = address if place == address else f"{address} ({place})"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except OSError as error:
        raise ClusterError(
            f"--address {shown}: nothing answers there ({error.strerror or error}); {_ADVICE}"
        ) from error
    code = _ask(f"{host}:{port}", CLIENT if place.startswith("ray://") else CLUSTER)
    token = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if code == grpc.StatusCode.UNAUTHENTICATED and not token:
        raise ClusterError(
            f"--address {shown}: the cluster wants a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH, here and on every node"
        )
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise ClusterError(f"--address {shown}: what listens there is no Ray cluster, or does not answer; {_ADVICE}")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        raise ClusterError(
            f"--address {shown}: what listens there is not what the address says; "
            "HOST:PORT is that of `ray start --head` (6379), ray://HOST:PORT that of Ray's client server (10001)"
        )


def _known() -> str:
    """The address that `auto` means: of RAY_ADDRESS, or of a cluster that was started on this machine."""
    from ray._private.services import get_ray_address_from_environment

    try:
        return get_ray_address_from_environment("auto", None)
    except ConnectionError as error:
        raise ClusterError(f"--address auto: no Ray cluster runs on this machine; {_ADVICE}") from error


def _ask(target: str, method: str) -> grpc.StatusCode:
    """The status of a call with an empty request; an environment's proxy is not used."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=ANSWER)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK
