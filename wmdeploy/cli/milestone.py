"""`wmdeploy milestone`: test a model against the requirements of the reference report."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wmdeploy.cli.common import app, example, out, print_notes
from wmdeploy.cli.options import (
    Clip,
    Device,
    DeviceName,
    Fit,
    FitName,
    Fps,
    Seed,
    Series,
    from_hub,
    read_options,
)
from wmdeploy.cli.progress import show_progress
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import WmdeployError
from wmdeploy.files import check_inside, check_output, write_document, write_text
from wmdeploy.manifest import MANIFEST_FILE


@app.command(epilog=example("wmdeploy milestone models/pong -o milestone"))
def milestone(
    model: Annotated[
        str,
        typer.Argument(
            help="Model directory, checkpoint, or preset (reference, small, tiny).",
            callback=from_hub,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for milestone.json and milestone.md."),
    ] = None,
    clip: Clip = SAMPLE_CLIP,
    device: Device = DeviceName.auto,
    seed: Seed = 0,
    fps: Fps = None,
    fit: Fit = FitName.squeeze,
    series: Series = None,
) -> None:
    """Run the four tests of the reference model's report, and show which milestones are reached."""
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
    read = read_options(fps, fit, series)
    options = MilestoneOptions(source=model, device=where, clip=clip, seed=seed, read=read)
    with show_progress() as progress:
        result = run_milestone(options, progress, remarks)
    print_notes(remarks)
    page = to_markdown(result)
    out.print(Rendered(page))
    if output:
        output.mkdir(parents=True, exist_ok=True)
        write_document(result, output / "milestone.json")
        write_text(page, output / "milestone.md")
        out.print(f"written: {output}/milestone.json, milestone.md")


def _check_report_folder(output: Path) -> None:
    """A model or a bundle with files of ours in it would be taken for a stranger's."""
    from wmdeploy.families.directory import CONFIG_FILE

    for marker in (CONFIG_FILE, MANIFEST_FILE):
        if (output / marker).exists():
            raise WmdeployError(f"{output}: contains a {marker}; choose another folder")
    for name in ("milestone.json", "milestone.md"):
        check_inside(output / name, output)
        check_output(output / name)
