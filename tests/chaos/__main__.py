"""Kill a run again and again, issue the same command after each time, and count what is lost.

    python -m tests.chaos --kills 100 [--seed S] [--from K] [--store DIR] [--cluster]

Small studies (trials of about 3 s on an idle core) run through the real command line on real Ray. At a moment that the
seed draws, SIGKILL goes to one of: the driver; its process group; all of its processes at once; a trial's actor; a
worker of Ray Train, in a study with `workers: 2`; the raylet; Ray's GCS. Or SIGSTOP, and SIGCONT after 20 s. Then the
same command runs again, and meets the next blow, until its study is complete; then a fresh store follows. What the
store holds at the end is compared with the store of a run that nobody disturbed.

With --cluster the commands run on three Ray nodes in namespaces of this machine (tests/cluster, which needs root). In
turn, a node that trains is killed with all of its processes, the raylet of one, the driver, and Ray on the head. A node
takes the place of a killed one while the command runs; without its head a new cluster resumes the study.

Counted, and 0 when all is well (the exit code is 1 otherwise): trials lost; trials, epochs or runs doubled; totals and
metrics that differ from the undisturbed run's, in trial folders, MLflow, Optuna and the report; commands that make no
progress for two minutes; processes that outlive their command by 90 s; commands that end without a clear message.

The same seed draws the same blows. `--from K` takes up at blow K after an interruption; with the same `--store` the
undisturbed runs are not repeated. Only processes that descend from the commands started here are touched.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.blows import draw, draw_on_cluster
from tests.chaos.cluster import Nodes
from tests.chaos.runs import Arena, Place, ThisMachine

DOC = __doc__ or ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=DOC, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="number of blows (100)")
    parser.add_argument("--seed", type=int, default=0, help="draws the blows (0)")
    parser.add_argument("--from", type=int, default=1, dest="first", metavar="K", help="number of the first blow (1)")
    parser.add_argument(
        "--store", type=Path, help="folder for the stores; a temporary one, removed at the end, if none"
    )
    parser.add_argument("--cluster", action="store_true", help="run on three nodes in namespaces; needs root")
    options = parser.parse_args(arguments)
    if options.kills < 1 or options.first < 1:
        parser.error("--kills and --from are 1 or more")
    # Short, because the path of a Unix socket, which Ray puts in here, has 107 characters at most.
    temporary = Path(tempfile.mkdtemp(prefix="chaos-"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this leaves no process behind
    # Each node has a /tmp of its own.
    shared = Path(tempfile.mkdtemp(prefix="chaos-", dir="/var/tmp")) if options.cluster else temporary
    place: Place = Nodes() if options.cluster else ThisMachine(temporary)
    drawn = draw_on_cluster if options.cluster else draw
    arena = Arena((options.store or shared / "stores").resolve(), temporary, place)
    try:
        for number in range(options.first, options.kills + 1):
            print(arena.strike(drawn(options.seed, number)), flush=True)
        arena.complete_all()
        return 1 if any(arena.faults.counts().values()) else 0
    finally:
        print("\n".join(arena.summary()), flush=True)
        place.end()
        for folder in (temporary, shared):
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
