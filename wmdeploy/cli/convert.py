"""`wmdeploy convert`: read a checkpoint of a model's authors."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import Family, from_hub
from wmdeploy.errors import WmdeployError, require
from wmdeploy.families.find import family_names


@app.command(epilog=example("wmdeploy convert iris.pt --family tokens -o models/iris"))
def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint of the authors' code: .pt, .ckpt or .safetensors.", callback=from_hub
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model directory to write.")],
    family: Family = None,
) -> None:
    """Convert a checkpoint of a model's authors to a model directory.

    Nothing in the checkpoint is executed. Checkpoints of the reference project need no conversion.
    """
    if family is None:
        raise WmdeployError(
            f"--family: got none, expected that of the checkpoint: {', '.join(family_names())}, or "
            "module:Class"
        )
    require("torch", extra="export", purpose="reading a checkpoint")
    from wmdeploy.cli.tables import model_table
    from wmdeploy.families.convert import convert as run_conversion

    print_notes(run_conversion(checkpoint, family, output))
    out.print(model_table(output, []))
