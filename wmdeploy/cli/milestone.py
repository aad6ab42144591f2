"""`wmdeploy milestone`: check a model against the requirements and milestones of the report."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wmdeploy.cli.common import (
    Clip,
    DeviceName,
    Fit,
    FitName,
    Fps,
    Seed,
    Series,
    app,
    example,
    out,
    read_options,
    tell,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import WmdeployError
from wmdeploy.files import check_inside, check_output, write_document, write_text
from wmdeploy.manifest import MANIFEST_FILE


@app.command(epilog=example("wmdeploy milestone models/pong -o milestone"))
def milestone(
    model: Annotated[str, typer.Argument(help="Model directory, checkpoint, or preset.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for milestone.json and milestone.md."),
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    device: Annotated[
        DeviceName, typer.Option(help="auto: a GPU if there is one.")
    ] = DeviceName.auto,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Run the reference report's four tests, and say which of its milestones a model reaches."""
    from rich.markdown import Markdown as Rendered

    from wmdeploy.benchmarks.evaluation.milestone import (
        MilestoneOptions,
        run_milestone,
        to_markdown,
    )
    from wmdeploy.engines.base import BASELINE, Settings
    from wmdeploy.engines.devices import pytorch_device

    if output:
        _check_report_folder(output)
    on_gpu = pytorch_device(BASELINE, Settings(device.value)).type == "cuda"
    where: Literal["cpu", "cuda"] = "cuda" if on_gpu else "cpu"
    remarks: list[str] = []
    with show_progress() as progress:
        read = read_options(fps, fit, series)
        options = MilestoneOptions(model, where, clip, seed, read=read)
        found = run_milestone(options, progress, remarks)
    tell(remarks)
    page = to_markdown(found)
    out.print(Rendered(page))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        write_document(found, output / "milestone.json")
        write_text(page, output / "milestone.md")
        out.print(f"written: {output}/milestone.json, milestone.md")


def _check_report_folder(output: Path) -> None:
    """A model or a bundle with files of ours in it would be taken for a stranger's."""
    from wmdeploy.models.checkpoint import CONFIG_FILE

    for marker in (CONFIG_FILE, MANIFEST_FILE):
        if (output / marker).exists():
            raise WmdeployError(f"{output}: holds a {marker}; choose a folder of its own")
    for name in ("milestone.json", "milestone.md"):
        check_inside(output / name, output)
        check_output(output / name)
