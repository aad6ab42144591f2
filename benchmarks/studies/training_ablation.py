"""What each choice in the transformer's training is worth: train it again without, and compare.

    python -m wmdeploy.benchmarks.studies.training_ablation --data data/boxing \\
        --vqvae models/games -o ablation

The VQ-VAE is that of a trained model, so that every row has the same ceiling. Prints a Markdown
table; the models stay in the output folder, and what is there is not trained again.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from wmdeploy.benchmarks.studies import run_study
from wmdeploy.families import load_family
from wmdeploy.families.directory import read_config
from wmdeploy.quality.report import QualityReport
from wmdeploy.training import TrainOptions
from wmdeploy.training.train import train

# (label, what is different from the options of TrainOptions)
ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("as it is", {}),
    ("not self-fed", {"self_fed": 0.0}),
    ("without actions", {"actions": False}),
)


def main(
    data: Annotated[list[Path], typer.Option(help="Folder of clips.")],
    vqvae: Annotated[Path, typer.Option(help="Model whose VQ-VAE is used.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the models.")],
    steps: Annotated[int, typer.Option(help="Of the transformer.")] = 4000,
    row: Annotated[list[int] | None, typer.Option(help="Only these rows, from 0 on.")] = None,
) -> None:
    """Train the rows and print the table."""
    out = Console(markup=False, highlight=False, soft_wrap=True)
    sizes = read_config(load_family("vqvae-transformer"), vqvae)
    out.print(
        "| | next frame (ceiling) | copy | within 0.1 | codes | changed codes "
        "| horizon 2 | 8 | 16 | 32 |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for index in row or range(len(ROWS)):
        label, changes = ROWS[index]
        options = TrainOptions(
            data=tuple(data),
            output=output / f"row-{index}",
            vqvae=vqvae,
            temporal_steps=steps,
            **changes,
        )
        summary = train(options, config=sizes)
        if summary is None:  # started by torchrun: the first process tells
            return
        assert summary.quality is not None  # of this family there is one
        out.print(f"| {label} | {_cells(summary.quality)} |")


def _cells(report: QualityReport) -> str:
    scores = report.all
    following, latents = scores.following, scores.latents["model"]
    rollout = scores.rollouts["model"].psnr
    cells = [
        f"{_db(following['model'].psnr)} ({_db(following['ceiling'].psnr)})",
        _db(following["copy"].psnr),
        f"{latents.within:.1%}",
        f"{latents.codes:.1%}",
        f"{latents.codes_changed or 0:.1%}",
        *(_db(rollout[n]) for n in (2, 8, 16, 32)),
    ]
    return " | ".join(cells)


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_study(main)
