"""The commands; thin: parse, call, print. One file per group; heavy imports wait until a command needs them.

To add a command, add it to the file of its group with `@app.command()`; a new file is imported here, in the order in
which `--help` lists its commands.
"""

from hmtl_ablate.cli import run, report, best, predict, evaluate, export, bundle, store, schema, data  # isort: skip  # in the order of --help
from hmtl_ablate.cli.root import app, main

__all__ = ["app", "best", "bundle", "data", "evaluate", "export", "main", "predict", "report", "run", "schema", "store"]
