"""`wmdeploy push`: upload a bundle to a model hub."""

from pathlib import Path
from typing import Annotated

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import from_hub
from wmdeploy.cli.progress import show_progress


@app.command(epilog=example("wmdeploy push bundles/pong hf://anna/pong --license mit"))
def push(
    bundle: Annotated[Path, typer.Argument(help="Bundle to upload.", callback=from_hub)],
    target: Annotated[
        str, typer.Argument(help="Where to: hf://owner/name, or hf://owner/name/path@branch.")
    ],
    license: Annotated[
        str | None,
        typer.Option(help="Licence of the model for its card, such as mit. Default: none is said."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Report of bench --json of this bundle: figures for its card.", callback=from_hub
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository a private one.")
    ] = False,
) -> None:
    """Upload a bundle to a hub in one commit, with a model card; HF_TOKEN is your token.

    A bundle that is there is replaced, and so is a card that this verb wrote; anything else is not.
    """
    from wmdeploy.benchmarks.render.card import model_card
    from wmdeploy.benchmarks.report import read_json
    from wmdeploy.bundle import Bundle
    from wmdeploy.hub.address import HubAddress
    from wmdeploy.hub.push import push as upload

    address = HubAddress.parse(target)
    opened = Bundle.open(bundle)
    card = model_card(opened, address, license, read_json(report) if report else None)
    remarks: list[str] = []
    with show_progress() as progress:
        url = upload(opened, address, card, private=private, progress=progress, remarks=remarks)
    print_notes(remarks)
    out.print(f"pushed to {address}: {url}")
