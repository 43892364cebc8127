"""The commands; thin: parse, call, print. One file per group; heavy imports wait until a command needs them.

To add a command, add it to the file of its group with `@app.command()`; a new file is imported here, in the order in
which `--help` lists its commands. Its docstring ends in a paragraph `Example: hmtl-ablate …`, on one line, which
`tests/cli/test_examples.py` runs in a store of the study `puzzling`.
"""

from hmtl_ablate.cli import run, report, trials, predict, evaluate, export, bundle, store, clean, schema, data  # isort: skip  # in the order of --help
from hmtl_ablate.cli.root import app, main

__all__ = [
    "app",
    "bundle",
    "clean",
    "data",
    "evaluate",
    "export",
    "main",
    "predict",
    "report",
    "run",
    "schema",
    "store",
    "trials",
]
