"""`wmdeploy inspect`: show what a bundle or a model holds."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, tell
from wmdeploy.manifest import MANIFEST_FILE


@app.command(epilog=example("wmdeploy inspect bundles/pong"))
def inspect(
    path: Annotated[Path, typer.Argument(help="A bundle, a model directory, or a checkpoint.")],
) -> None:
    """Show what a bundle or a model holds, and check its hashes."""
    from wmdeploy.bundle import Bundle
    from wmdeploy.cli.tables import bundle_tables, model_table

    if (path / MANIFEST_FILE).is_file():
        opened = Bundle.open(path)
        opened.verify()
        for table in bundle_tables(opened, details=True):
            out.print(table)
    else:
        remarks: list[str] = []
        out.print(model_table(path, remarks))
        tell(remarks)
