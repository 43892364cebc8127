"""`schema`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hmtl_ablate.cli.options import Imports
from hmtl_ablate.cli.root import app


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a reference for people to read instead.")] = False,
    imports: Imports = [],
) -> None:
    """Print the JSON Schema of study files, for editors.

    Example: hmtl-ablate schema --markdown
    """
    from hmtl_ablate.checks import import_modules
    from hmtl_ablate.study import schema_text, study_reference

    import_modules(imports)
    sys.stdout.write(study_reference() if markdown else schema_text())
