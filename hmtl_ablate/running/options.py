"""How a run is carried out; nothing here changes what is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from hmtl_ablate.errors import ClusterError, HmtlError, nearest
from hmtl_ablate.machine import this_machine
from hmtl_ablate.study import Resources

Engine = Literal["ray", "local"]


@dataclass(frozen=True)
class RunOptions:
    """Run-wide options. Raises HmtlError when they contradict each other."""

    engine: Engine = "ray"
    """ray: processes on this machine or a cluster; local: in this process, one trial after another."""
    address: str | None = None
    """A running Ray cluster, as HOST:PORT, ray://HOST:PORT or auto; None starts Ray on this machine."""
    max_concurrent: int | None = None
    """Trials at once; None for as many as the cluster holds."""
    pictures: bool = True
    """Copy the pictures that show faces to MLflow; confusion matrices are copied either way."""
    storage: str | None = field(default=None, repr=False)
    """URL of Optuna's database (sqlite:/// or postgresql://); None for SQLite in the store."""
    imports: tuple[str, ...] = ()
    """Modules that every worker imports first: they register backbones, pretext tasks or datasets."""
    budget: float | None = None
    """Seconds, from the start of the run, in which all trials that it starts are expected to end; None: no limit."""
    grow: bool = False
    """Ask the cluster for `max_concurrent` trials at once, even if it does not hold as many now: an autoscaling cluster
    starts nodes for them."""
    join: bool = False
    """Share the study's trials with other drivers that run it in the same store."""

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise HmtlError(f"there is no engine {self.engine!r}; {nearest(self.engine, get_args(Engine))}")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise HmtlError(f"max_concurrent is {self.max_concurrent}; at least one trial runs at a time")
        if self.grow and not (self.address and self.max_concurrent):
            raise HmtlError("grow: name the cluster that grows, and the trials at once: address and max_concurrent")
        if self.engine == "local":
            if self.address is not None:
                raise HmtlError(
                    f"the local engine trains in this process and can't use the Ray cluster at {self.address}; "
                    "use the engine ray, or leave the address out"
                )
            if self.max_concurrent is not None and self.max_concurrent > 1:
                raise HmtlError(
                    f"the local engine trains one trial at a time, not {self.max_concurrent}; "
                    "use the engine ray, or leave max_concurrent out"
                )

    def places(self, resources: Resources) -> int:
        """Trials at once on this machine: those that it holds, at most those asked for; 0 where not even one fits. A
        cluster says so itself once it is joined."""
        room = this_machine().at_once(resources.cpus * resources.workers, resources.gpus * resources.workers)
        return min(room, 1 if self.engine == "local" else self.max_concurrent or room)


def refuse_workers(resources: Resources) -> None:
    """Raise ClusterError when the local engine can't give a trial as many workers as it asks for."""
    if resources.workers > 1:
        raise ClusterError(
            f"the local engine trains in one process, but the study asks for {resources.workers} workers per trial; "
            "use the engine ray, or set resources.workers=1"
        )
