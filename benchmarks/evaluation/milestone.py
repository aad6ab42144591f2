"""The reference project's four tests on the real model: architecture, memory, prediction, speed.

    result = run_milestone(MilestoneOptions("reference", device="cpu"), print)

Its report ran them on an untrained model and called later milestones pending. Here the same fields
are filled for any model, trained ones with what they reach on clips they were not trained on. All
is PyTorch float32, the whole window for each frame: what a deployment gains over it, `wmdeploy
bench` tells.
"""

import gc
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from torch import nn

from wmdeploy.benchmarks.bench.machine import this_machine
from wmdeploy.benchmarks.environment import Machine
from wmdeploy.benchmarks.worker.memory import peak_resident_mb
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import CheckpointError, WmdeployError
from wmdeploy.families import family_of, load_model
from wmdeploy.families.directory import read_training
from wmdeploy.families.precision import allow_tf32
from wmdeploy.families.reference.family import reference_model
from wmdeploy.progress import Progress, silent
from wmdeploy.quality.report import QualityReport

SEQUENCES = (4, 8, 16)
PREDICTED = 8  # frames of the prediction and speed tests, as in the report; at most S + 1
LIMIT_GB = 8.0
LIMIT_MS = 100.0
REAL_TIME_MS = 1000 / 30


@dataclass(frozen=True, kw_only=True)
class MilestoneOptions:
    """What to test: any source that `load_model` takes, on "cpu" or "cuda", on real frames."""

    source: str
    device: Literal["cpu", "cuda"]
    clip: Path = SAMPLE_CLIP
    seed: int = 0
    runs: int = 5
    read: ReadOptions = ReadOptions()


@dataclass(frozen=True, kw_only=True)
class Milestone:
    """What the four tests gave. Field names inside are the report's own.

    Attributes:
        model: what was tested.
        device: where: "cpu" or "cuda".
        environment: of the machine.
        architecture: total_parameters, vqvae_parameters, temporal_parameters, model_size_mb (of
            2^20 bytes, as the report counts).
        memory: max_memory_gb, under_8gb_limit, and memory_scaling: for sequences of 4, 8 and 16
            frames the peak in 10^9 bytes, of torch's allocator on a GPU, of the process on a CPU.
        prediction: mse and psnr (-10·log10(mse)) over latents, prediction_shape, target_shape.
        speed: avg_time_ms of encoding `frames` (8) frames and predicting from them, the median;
            time_per_frame_ms, its share for each; under_100ms; real_time_capable: 30 a second.
        quality: what the model reaches on clips it was not trained on, as its training noted; None
            for a model that was not trained by `wmdeploy train`.
    """

    model: str
    device: str
    environment: Machine
    architecture: dict[str, Any]
    memory: dict[str, Any]
    prediction: dict[str, Any]
    speed: dict[str, Any]
    quality: QualityReport | None


@torch.inference_mode()
def run_milestone(
    options: MilestoneOptions,
    progress: Progress = silent,
    remarks: list[str] | None = None,
) -> Milestone:
    """Run the four tests.

    Args:
        remarks: gets those of `load_model`, and the notes of the clip.

    Raises:
        CheckpointError, ClipError: the model or the clip cannot be read, or they do not fit.
        WmdeployError: there is no such device, or the model is of another family.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise WmdeployError("device: got cuda, and torch finds no GPU; give the device cpu")
    allow_tf32(False)
    progress("milestone", 0, 4, "load")
    quality = _noted_quality(options.source)
    model = reference_model(load_model(options.source, options.seed, remarks)).to(options.device)
    facts = family_of(model).facts(model)
    size = facts.image_size
    clip = read_clip(options.clip, size=size, count=max(SEQUENCES), options=options.read)
    if remarks is not None:
        remarks += clip.remarks
    actions = _actions(model, clip)
    architecture = {
        "total_parameters": facts.parameters["all"],
        "vqvae_parameters": facts.parameters["VQ-VAE"],
        "temporal_parameters": facts.parameters["transformer"],
        "model_size_mb": facts.parameters["all"] * 4 / 2**20,
    }
    progress("milestone", 1, 4, "memory")
    memory = _memory(model, clip.frames, actions, options.device)
    progress("milestone", 2, 4, "prediction")
    prediction = _prediction(model, clip.frames, actions)
    progress("milestone", 3, 4, "speed")
    speed = _speed(model, clip.frames, actions, options)
    return Milestone(
        model=options.source,
        device=options.device,
        environment=this_machine(),
        architecture=architecture,
        memory=memory,
        prediction=prediction,
        speed=speed,
        quality=quality,
    )


def _actions(model: nn.Module, clip: Clip) -> torch.Tensor | None:
    facts = family_of(model).facts(model)
    actions = clip.check_actions(facts.num_actions, facts.action_size)
    if actions is None:
        return None
    return torch.from_numpy(actions[None]).to(next(model.parameters()).device)


def _given(model: nn.Module, frames: np.ndarray, count: int) -> torch.Tensor:
    """The first `count` frames as (1, count, H, W, 3) uint8, where the model is."""
    return torch.tensor(frames[None, :count]).to(next(model.parameters()).device)


def _run(
    model: nn.Module, frames: torch.Tensor, actions: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode (1, T, H, W, 3) and predict from all but the last: (1, T, L) and (1, T - 1, L)."""
    reference = reference_model(model)
    latents = torch.cat([reference.encode(frame)[0] for frame in frames.split(1, dim=1)], dim=1)
    taken = None if actions is None else actions[:, : frames.shape[1] - 1]
    return latents, reference.temporal_model(latents[:, :-1], taken)


def _memory(
    model: nn.Module, frames: np.ndarray, actions: torch.Tensor | None, device: str
) -> dict[str, Any]:
    scaling: dict[str, float] = {}
    reference = reference_model(model)
    context = reference.config.temporal.context
    for length in [n for n in SEQUENCES if n <= context + 1] or [context + 1]:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        _, predicted = _run(model, _given(model, frames, length), actions)
        reference.decode(predicted)
        gc.collect()
        peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else peak_resident_mb()
        scaling[str(length)] = peak / 1e3
    most = max(scaling.values())
    return {
        "max_memory_gb": most,
        "under_8gb_limit": most < LIMIT_GB,
        "memory_scaling": scaling,
        "counted_by": "torch's allocator" if device == "cuda" else "the process's peak on the CPU",
    }


def _predicted(model: nn.Module) -> int:
    return min(PREDICTED, reference_model(model).config.temporal.context + 1)


def _prediction(
    model: nn.Module, frames: np.ndarray, actions: torch.Tensor | None
) -> dict[str, Any]:
    latents, predicted = _run(model, _given(model, frames, _predicted(model)), actions)
    mse = (predicted - latents[:, 1:]).double().square().mean().item()
    return {
        "mse": mse,
        "psnr": -10 * math.log10(max(mse, 1e-12)),
        "prediction_shape": list(predicted.shape),
        "target_shape": list(latents[:, 1:].shape),
    }


def _speed(
    model: nn.Module, frames: np.ndarray, actions: torch.Tensor | None, options: MilestoneOptions
) -> dict[str, Any]:
    count = _predicted(model)
    given = _given(model, frames, count)
    samples = []
    for _ in range(options.runs + 1):
        begin = time.perf_counter()
        _run(model, given, actions)
        if options.device == "cuda":
            torch.cuda.synchronize()
        samples.append((time.perf_counter() - begin) * 1e3)
    average = statistics.median(samples[1:])  # the first one warms up
    each = average / count
    return {
        "frames": count,
        "avg_time_ms": average,
        "time_per_frame_ms": each,
        "under_100ms": each < LIMIT_MS,
        "real_time_capable": each < REAL_TIME_MS,
        "samples_ms": samples[1:],
    }


def to_markdown(result: Milestone) -> str:
    """The result as a page: the tests, the requirements, the three milestones."""
    architecture, memory, speed = result.architecture, result.memory, result.speed
    prediction = result.prediction
    scaling = ", ".join(f"{n} frames {gb:.2f} GB" for n, gb in memory["memory_scaling"].items())
    where = f"on the {'GPU' if result.device == 'cuda' else 'CPU'}"
    lines = [
        f"# Milestones of {result.model}",
        "",
        f"PyTorch float32 {where}: {result.environment.cpu}"
        + (f", {result.environment.gpu.name}" if result.environment.gpu else ""),
        "",
        "## Tests",
        "",
        "| test | result |",
        "|---|---|",
        f"| architecture | {architecture['total_parameters']:,} parameters: VQ-VAE "
        f"{architecture['vqvae_parameters']:,}, transformer "
        f"{architecture['temporal_parameters']:,}; {architecture['model_size_mb']:.1f} MB |",
        f"| memory {where} | {scaling} ({memory['counted_by']}) |",
        f"| prediction | latents {prediction['prediction_shape']}: MSE {prediction['mse']:.3f}, "
        f"PSNR {prediction['psnr']:.2f} dB |",
        f"| speed {where} | {speed['frames']} frames encoded and predicted from in "
        f"{speed['avg_time_ms']:.1f} ms, {speed['time_per_frame_ms']:.2f} ms a frame, decoding not "
        "included |",
        "",
        "## Requirements",
        "",
        "| requirement | measured | met |",
        "|---|---|---|",
        f"| memory under 8 GB {where} | {memory['max_memory_gb']:.2f} GB | "
        f"{_met(memory['under_8gb_limit'])} |",
        f"| a frame in under 100 ms {where} | {speed['time_per_frame_ms']:.2f} ms | "
        f"{_met(speed['under_100ms'])} |",
        *_quality_lines(result.quality),
    ]
    return "\n".join(lines) + "\n"


def _noted_quality(source: str) -> QualityReport | None:
    """The scores that a model's training noted.

    Raises:
        CheckpointError: they are damaged.
    """
    noted = read_training(source).summary.get("quality")
    if noted is None:
        return None
    try:
        quality = msgspec.convert(noted, QualityReport, str_keys=True)
        _quality_lines(quality)
        return quality
    except (msgspec.ValidationError, LookupError) as error:
        raise CheckpointError(
            f"{source}: the scores that its training stored are damaged ({error}); run "
            "`wmdeploy evaluate` again"
        ) from error


def _quality_lines(quality: QualityReport | None) -> list[str]:
    """Requirements on a trained model, and the milestones."""
    if not quality:
        return [
            "| prediction accuracy above 80% | not trained | no |",
            "| PSNR above 25 dB | not trained | no |",
            "",
            "The model has no record of a training, so the milestones (reconstruction, next frame, "
            "sequence) are open: run `wmdeploy train`, or `wmdeploy evaluate` for other models.",
        ]
    scores = quality.all
    latents = scores.latents["model"]
    next_frame, copy = scores.following["model"].psnr, scores.following["copy"].psnr
    reconstruction = scores.reconstruction.psnr if scores.reconstruction else None
    sequence = "no clip was long enough"
    stays = False
    if scores.rollouts:
        model, copied = scores.rollouts["model"].psnr, scores.rollouts["copy"].psnr
        later = [n for n in model if 2 <= n <= 16]
        stays = all(_db(model[n]) > _db(copied[n]) for n in later)
        sequence = ", ".join(f"{n}: {_db(model[n]):.1f} ({_db(copied[n]):.1f})" for n in model)
    return [
        f"| prediction accuracy above 80% (latents within 0.1) | {latents.within:.1%} | "
        f"{_met(latents.within > 0.8)} |",
        f"| PSNR of the next frame above 25 dB | {_db(next_frame):.2f} dB | "
        f"{_met(_db(next_frame) > 25)} |",
        "",
        f"## Milestones, on {scores.frames} frames outside the training set",
        "",
        "| milestone | measured | reached |",
        "|---|---|---|",
        f"| 1 reconstruction above 25 dB | {_db(reconstruction):.2f} dB | "
        f"{_met(_db(reconstruction) > 25)} |",
        f"| 2 next frame above 25 dB and above copying the last | {_db(next_frame):.2f} dB, copy "
        f"{_db(copy):.2f} dB | {_met(_db(next_frame) > max(25, _db(copy)))} |",
        f"| 3 sequences of 2 to 16 frames above copying the last, dB by horizon (copy) | {sequence}"
        f" | {_met(stays)} |",
    ]


def _db(value: float | None) -> float:
    return math.inf if value is None else value


def _met(ok: bool) -> str:
    return "yes" if ok else "no"
