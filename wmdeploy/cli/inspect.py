"""`wmdeploy inspect`: show what a bundle or a model contains."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import Family, from_hub
from wmdeploy.manifest import MANIFEST_FILE


@app.command(epilog=example("wmdeploy inspect bundles/pong"))
def inspect(
    path: Annotated[
        Path,
        typer.Argument(help="Bundle, model directory or checkpoint.", callback=from_hub),
    ],
    family: Family = None,
) -> None:
    """Show what a bundle or a model contains, and check the hashes of a bundle."""
    from wmdeploy.bundle import Bundle
    from wmdeploy.cli.tables import bundle_tables, model_table

    if (path / MANIFEST_FILE).is_file():
        bundle = Bundle.open(path)
        bundle.verify()
        for table in bundle_tables(bundle, details=True):
            out.print(table)
    else:
        remarks: list[str] = []
        out.print(model_table(path, remarks, family))
        print_notes(remarks)
