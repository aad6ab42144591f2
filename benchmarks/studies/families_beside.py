"""Two families trained on the same clips for the same time: what each predicts, and how sharply.

    wmdeploy record boxing -o data/boxing --frames 20000 --size 32
    python -m wmdeploy.benchmarks.studies.families_beside --data data/boxing -o beside

A VQ-VAE with a transformer regresses the next latent: where the future is uncertain it gives the
mean of what may come. A diffusion model draws one of the futures. Both are trained at the frames'
own size, here 32x32, one after the other, and evaluated by their frames on held-out clips. Prints a
Markdown table; the models and a strip of pictures for each stay in the output folder, and what is
there is not trained again.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from wmdeploy.benchmarks.evaluation.evaluate import EvaluateOptions, evaluate
from wmdeploy.benchmarks.studies import run_study
from wmdeploy.families import load_family
from wmdeploy.families.reference.config import TemporalConfig, VQVAEConfig, WorldModelConfig
from wmdeploy.quality.plots import write_picture
from wmdeploy.quality.report import FrameScores, GroupReport
from wmdeploy.training import TrainOptions
from wmdeploy.training.train import train

# The reference family's preset `tiny`, for frames of 32x32: one halving less, as many codes.
REFERENCE = WorldModelConfig(
    VQVAEConfig(32, (16, 32, 64), latent_channels=16, codebook_size=128),
    TemporalConfig(d_model=128, layers=2, heads=4, context=16),
)
MANY = 10**6  # steps: the time limit ends a stage
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "vqvae-transformer": (REFERENCE, {"vqvae_steps": MANY, "temporal_steps": MANY}),
    "diffusion": (None, {"stages": {"denoiser.steps": MANY, "rewards.steps": MANY}}),
}


def main(
    data: Annotated[list[Path], typer.Option(help="Folder of clips of 32x32 pixels.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the models.")],
    minutes: Annotated[float, typer.Option(help="Of training, for each.")] = 40,
    clips: Annotated[int, typer.Option(help="Held-out clips of each folder.")] = 4,
    only: Annotated[list[str] | None, typer.Option(help="Only these families.")] = None,
) -> None:
    """Train both, evaluate them, print the table."""
    out = Console(markup=False, highlight=False, soft_wrap=True)
    out.print(
        "| | next frame, dB | where pixels move, dB | sharpness there | SSIM "
        "| horizon 2 | 8 | 16 | 32 |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name in only or ROWS:
        config, changes = ROWS[name]
        options = TrainOptions(
            data=tuple(data),
            output=output / name,
            family=load_family(name).name,
            max_minutes=minutes,
            **changes,
        )
        if train(options, config=config) is None:  # started by torchrun: the first process tells
            return
        held_out = EvaluateOptions(
            source=str(output / name), data=tuple(data), clips=clips, pictures=True
        )
        report, picture = evaluate(held_out)
        if picture is not None:
            write_picture(output / f"{name}.png", picture)
        for who, label in (("model", name), ("copy", f"copy, on the clips of {name}")):
            out.print(f"| {label} | {_cells(report.all, who)} |")


def _cells(scores: GroupReport, who: str) -> str:
    frame: FrameScores = scores.following[who]
    rollout = scores.rollouts[who].psnr
    cells = [
        _number(frame.psnr),
        _number(frame.psnr_changed),
        _number(frame.sharpness),
        f"{frame.ssim:.3f}",
        *(_number(rollout[n]) for n in (2, 8, 16, 32)),
    ]
    return " | ".join(cells)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_study(main)
