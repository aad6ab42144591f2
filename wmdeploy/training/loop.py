"""Run the steps of one stage: seed, learning rate, gradient, checks, checkpoints.

Knows nothing of what a stage trains. Everything random in a step is drawn from (seed, stage, step),
so that a training which was killed and goes on from its last checkpoint ends with the same weights.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from wmdeploy.errors import TrainingError
from wmdeploy.training.options import Reporter
from wmdeploy.training.state import Progress, TrainFolder

WARMUP = 50  # steps, at most a tenth of the stage
FINAL_SHARE = 0.02  # of the highest learning rate, at the last step
GRADIENT_NORM = 1.0


class Stage(Protocol):
    """One thing to train. `loss` may update buffers, but no parameter."""

    name: str
    steps: int
    rate: float

    def parameters(self) -> Iterable[nn.Parameter]:
        """What the optimizer moves."""

    def loss(self, step: int) -> Tensor:
        """The loss of one step, a scalar with a gradient. May draw from torch's generator."""


def run_stage(
    stage: Stage,
    model: nn.Module,
    progress: Progress,
    folder: TrainFolder,
    *,
    seed: int,
    checkpoint_every: int,
    report: Reporter,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train one stage from `progress.step` to its end; `model` holds all that is saved.

    `progress` is brought up to date with every step and then says that the stage is over.

    Raises:
        TrainingError: the loss or its gradient is NaN or infinite; the last checkpoint stays.
        WmdeployError: a checkpoint cannot be written.
    """
    parameters = list(stage.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=stage.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    if progress.optimizer is not None:
        optimizer.load_state_dict(progress.optimizer)
    for step in range(progress.step, stage.steps):
        begin = clock()
        torch.manual_seed(_step_seed(seed, stage.name, step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, stage.steps, stage.rate)
        loss = stage.loss(step)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        value = loss.item()
        _check_finite(stage, step, value, norm.item(), folder)
        optimizer.step()
        progress.step = step + 1
        progress.seconds[stage.name] = progress.seconds.get(stage.name, 0.0) + clock() - begin
        if progress.step % checkpoint_every == 0 and progress.step < stage.steps:
            progress.optimizer = optimizer.state_dict()
            folder.save(model, progress)
        report(stage.name, progress.step, stage.steps, value)
    progress.finished.append(stage.name)
    progress.step, progress.optimizer = 0, None
    folder.save(model, progress)


def learning_rate(step: int, steps: int, highest: float) -> float:
    """A short linear rise, then half a cosine down to `FINAL_SHARE` of the highest rate."""
    rise = min(1.0, (step + 1) / max(1, min(WARMUP, steps // 10)))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return highest * rise * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def _step_seed(seed: int, stage: str, step: int) -> int:
    return int(np.random.SeedSequence([seed, *stage.encode(), step]).generate_state(1)[0])


def _check_finite(stage: Stage, step: int, loss: float, norm: float, folder: TrainFolder) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise TrainingError(
        f"{stage.name}, step {step + 1} of {stage.steps}: got the loss {loss} and the gradient "
        f"norm {norm}, expected finite numbers; the state before it stays in {folder.path}. "
        f"Remove that folder and train with a lower learning rate than {stage.rate:g}"
    )
