"""`clean`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hmtl_ablate.cli.options import DEFAULT_RUNS, Runs, TrackingUri
from hmtl_ablate.cli.root import app


@app.command()
def clean(
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """List what the store can do without, ask, and remove it. What a study declares is never touched.

    Example: hmtl-ablate clean --dry-run
    """
    from hmtl_ablate.api import cleaning

    plan = cleaning.clean(runs, tracking_uri=tracking_uri)
    if not plan.removals:
        print(f"nothing to remove · store: {runs}")
        return
    for one in plan.removals:
        print(f"{one.kind:<10}  {one.folder}")
    print("\n".join(plan.lines()))
    if dry_run:
        return
    if not yes and not sys.stdin.isatty():
        print("nothing was removed: add --yes to remove it without a question", file=sys.stderr)
        return
    if not yes and input("Remove? [y/N] ").strip().lower() not in {"y", "yes"}:
        print("nothing was removed")
        return
    left = plan.apply()
    for folder in left:
        print(f"left alone, in use: {folder}", file=sys.stderr)
    print(f"removed · store: {runs}")
