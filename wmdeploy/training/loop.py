"""Run the steps of one stage: seeds, learning rate, gradient, checks, checkpoints, an early end.

Knows nothing of what a stage trains. Everything random in a step is drawn from (seed, stage, step,
process), so that a training which was killed and goes on from its last checkpoint ends with the
same weights. One process, several GPUs and several machines are the same code: Accelerate wraps the
stage's module, and each process works on its share of every batch.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, reduce
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from wmdeploy.errors import TrainingError
from wmdeploy.progress import Progress
from wmdeploy.training.log import TrainingLog
from wmdeploy.training.optimizer import restore
from wmdeploy.training.options import TrainOptions
from wmdeploy.training.state import StageRecord, TrainFolder, TrainState

WARMUP = 50  # steps, at most a tenth of the stage
FINAL_SHARE = 0.02  # of the highest learning rate, at the last step
GRADIENT_NORM = 1.0
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Share:
    """Which process of how many."""

    process: int = 0
    processes: int = 1


def share_of(batch: np.ndarray, share: Share) -> np.ndarray:
    """One process's part of a batch; all parts are of one size, so its first may come twice."""
    size = -(-len(batch) // share.processes)
    return np.resize(batch, size * share.processes)[share.process * size :][:size]


class StageModule(Protocol):
    """What a stage gives Accelerate: `module(**batch)` is the loss, a scalar with a gradient.

    `done`, the share of the stage that is over, and `step` are set before each call. It may update
    buffers, but no parameter.
    """

    done: float
    step: int


class Stage(Protocol):
    """One thing to train."""

    name: str
    steps: int
    rate: float

    @property
    def module(self) -> Any:
        """An `nn.Module` that is a `StageModule`."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """What the optimizers move."""

    def optimizers(self) -> list[Optimizer]:
        """New ones, for these parameters."""

    def batch(self, step: int, share: Share) -> Batch:
        """What one process computes one loss of; `step` counts these, not optimizer steps."""

    def describe(self, step: int, share: Share) -> str:
        """What that batch is made of, for a message."""

    def images(self) -> int:
        """Frames in one process's batch."""

    def held_out(self) -> list[Batch]:
        """Batches to judge the model by, now; none where its losses cannot be compared yet."""

    def blocks(self) -> Iterable[nn.Module]:
        """Modules that with `options.checkpointing` keep nothing but their inputs."""

    def figures(self) -> dict[str, float]:
        """What else to draw as curves."""

    def resume(self, done: float) -> None:
        """Told once, before the first step of this run, how much of the stage is over."""

    def finish(self) -> None:
        """What is to be done once the last step is over."""


class StageBatches(Dataset):
    """A stage's batches by number, so that they can be prepared while the model works."""

    def __init__(self, stage: Stage, share: Share) -> None:
        self._stage = stage
        self._share = share

    def __getitem__(self, number: int) -> Batch:
        return self._stage.batch(number, self._share)


def shared_mean(value: Tensor) -> Tensor:
    """The mean of a value over all processes, without its gradient."""
    return reduce(value.detach().float(), "mean")


def run_stage(
    stage: Stage,
    model: nn.Module,
    accelerator: Accelerator,
    state: TrainState,
    folder: TrainFolder,
    options: TrainOptions,
    budget: float | None,
    log: TrainingLog,
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train one stage from where `state` is to its end; `model` holds all that is saved.

    Ends after the stage's steps, after `budget` seconds, or when held-out batches have not got
    better `options.patience` times; then the best weights are taken, if the last are not these.
    `state` is brought up to date with every step and then says that the stage is over.

    Raises:
        TrainingError: the loss or its gradient is NaN or infinite; the last checkpoint stays. Or
            `state` has the optimizers of another training.
        WmdeployError: a checkpoint cannot be written.
    """
    record = state.current
    share = Share(accelerator.process_index, accelerator.num_processes)
    parameters = list(stage.parameters())
    stage.module.train()
    blocks = _checkpointed(stage.blocks()) if options.checkpointing else []
    stage.resume(_done(record, stage.steps, budget))
    module = accelerator.prepare(stage.module)  # it may move parameters, or share the first one's
    optimizers = stage.optimizers()
    with folder.readable_state():
        if state.optimizers:
            restore(optimizers, state.optimizers)
        if accelerator.scaler is not None and state.scaler:
            accelerator.scaler.load_state_dict(state.scaler)

    def save() -> None:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            state.optimizers = [optimizer.state_dict() for optimizer in optimizers]
            state.scaler = accelerator.scaler.state_dict() if accelerator.scaler else None
            folder.save(model, state)

    judge = partial(
        _judge,
        stage,
        module,
        accelerator=accelerator,
        record=record,
        options=options,
        folder=folder,
        model=model,
        log=log,
    )
    batches = iter(_loader(stage, share, record.step, options, accelerator.device))

    def over() -> float:
        return _agreed(_done(record, stage.steps, budget), accelerator)

    while (done := over()) < 1 and not record.ended:
        begin = clock()
        rate = learning_rate(done, record.step, stage.steps, stage.rate)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        losses = []
        for micro in range(options.accumulate):
            number = record.step * options.accumulate + micro
            waiting = clock()
            batch = {name: t.to(accelerator.device) for name, t in next(batches).items()}
            record.data_seconds += clock() - waiting
            torch.manual_seed(_step_seed(options.seed, stage.name, number, share))
            stage.module.done, stage.module.step = done, record.step
            with accelerator.accumulate(module):
                loss = module(**batch)
                accelerator.backward(loss)
                losses.append(loss.detach())
        norm = step_with(optimizers, parameters, accelerator.scaler)
        value = shared_mean(torch.stack(losses).mean()).item()
        if not (math.isfinite(value) and is_usable(norm, accelerator.scaler)):
            raise _diverged(
                stage,
                share,
                step=record.step,
                options=options,
                loss=value,
                norm=norm,
                folder=folder,
            )
        record.step += 1
        record.images += stage.images() * options.accumulate * share.processes
        record.seconds += clock() - begin
        log.scalars(stage.name, record.step, {"loss": value, "rate": rate, "norm": norm})
        if record.step % options.checkpoint_every == 0 and record.step < stage.steps:
            judge()
            save()
        record.elapsed += clock() - begin
        progress(stage.name, record.step, stage.steps, f"loss {value:.4f}")
    if not record.ended:
        record.ended = "steps" if record.step >= stage.steps else "time"
    judge()
    accelerator.unwrap_model(module, keep_fp32_wrapper=False)
    accelerator.free_memory()
    for block in blocks:
        del block.forward
    if record.held_out is not None and record.best is not None and record.best < record.held_out:
        folder.load_best(model)
        record.held_out = record.best
    stage.module.eval()
    stage.finish()
    state.next_stage(stage.name)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.save(model, state)


def learning_rate(done: float, step: int, steps: int, highest: float) -> float:
    """A short linear rise, then half a cosine down to `FINAL_SHARE` of the highest rate."""
    rise = min(1.0, (step + 1) / max(1, min(WARMUP, steps // 10)))
    cosine = (1 + math.cos(math.pi * done)) / 2
    return highest * rise * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def _done(record: StageRecord, steps: int, budget: float | None) -> float:
    """How much of a stage is over, by steps or by time, whichever is more: 0 to 1."""
    by_time = 0.0 if budget is None else record.elapsed / budget
    return min(1.0, max(record.step / steps, by_time))


def _agreed(value: float, accelerator: Accelerator) -> float:
    """The main process's word, as clocks and last bits differ."""
    return float(broadcast(torch.tensor(value, dtype=torch.float64, device=accelerator.device)))


def step_with(
    optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter], scaler: Any
) -> float:
    """Clip the gradient, step with it, clear it; returns its norm before.

    With float16's scaler a gradient that overflowed is not stepped with, by none of the optimizers,
    and the scale is lowered. Done by hand, as the scale must change once for all of them.
    """
    for optimizer in optimizers if scaler is not None else ():
        scaler.unscale_(optimizer)
    norm = float(nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM))
    for optimizer in optimizers:
        if scaler is None:
            optimizer.step()
        elif math.isfinite(norm):
            scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=False)
    if scaler is not None:
        scaler.update()
    return norm


def is_usable(norm: float, scaler: Any) -> bool:
    """Whether a gradient is finite, or overflowed at a scale that can still be lowered."""
    return math.isfinite(norm) or (scaler is not None and scaler.get_scale() >= 1)


def _loader(
    stage: Stage, share: Share, step: int, options: TrainOptions, device: torch.device
) -> DataLoader:
    numbers: Sequence[int] = range(step * options.accumulate, stage.steps * options.accumulate)
    # beside a GPU two processes prepare what comes next; on a CPU they would take its cores
    workers = 2 if device.type == "cuda" else 0
    return DataLoader(
        StageBatches(stage, share),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )


@torch.no_grad()
def _judge(
    stage: Stage,
    module: nn.Module,
    accelerator: Accelerator,
    record: StageRecord,
    options: TrainOptions,
    folder: TrainFolder,
    model: nn.Module,
    log: TrainingLog,
) -> None:
    """The loss on held-out batches: keep the best weights, and end early when it stays away."""
    held_out = stage.held_out()
    if not held_out:
        return
    module.eval()
    losses = [
        module(**{name: tensor.to(accelerator.device) for name, tensor in batch.items()})
        for batch in held_out
    ]
    module.train()
    record.held_out = _agreed(torch.stack(losses).mean().item(), accelerator)
    log.scalars(stage.name, record.step, {"held_out": record.held_out, **stage.figures()})
    log.pictures(stage.name, record.step)
    if record.best is None or record.held_out < record.best:
        record.best, record.worse = record.held_out, 0
        if accelerator.is_main_process:
            folder.save_best(model)
    else:
        record.worse += 1
        if options.patience and record.worse >= options.patience and not record.ended:
            record.ended = "patience"


def _checkpointed(blocks: Iterable[nn.Module]) -> list[nn.Module]:
    """Let blocks keep nothing for the backward pass but their input, and compute it again."""
    changed = list(blocks)
    for block in changed:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return changed


def _step_seed(seed: int, stage: str, number: int, share: Share) -> int:
    key = [seed, *stage.encode(), number, share.process]
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def _diverged(
    stage: Stage,
    share: Share,
    step: int,
    options: TrainOptions,
    loss: float,
    norm: float,
    folder: TrainFolder,
) -> TrainingError:
    batch = stage.describe(step * options.accumulate, share)
    batch = batch if len(batch) <= 200 else f"{batch[:197]}..."
    return TrainingError(
        f"{stage.name}, step {step + 1} of {stage.steps}: got the loss {loss} and the gradient "
        f"norm {norm}, expected finite numbers; its batch began with {batch}; the state before it "
        f"stays in {folder.path}. Remove that folder and train with a lower learning rate than "
        f"{stage.rate:g}, or in float32"
    )
