"""What each float32 island of the fp16 graphs buys: leave one out, and measure.

    python -m wmdeploy.benchmarks.studies.precision_islands models/pong --clip pong.mkv

Runs the graphs' PyTorch modules in float16 on the CPU, beside the same modules in float32: slow,
and meant for small models. Prints a table in Markdown, as docs/tensorrt.md has it, and how far the
largest activation is from float16's largest number, 65504, on frames that no clip has.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.benchmarks.studies import run_study
from wmdeploy.clips.clip import Clip
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.engines.rollout import rollout
from wmdeploy.families import family_of, load_model
from wmdeploy.families.reference import graphs
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.vqvae import VectorQuantizer
from wmdeploy.manifest import Precision
from wmdeploy.programs.modules import module_backend
from wmdeploy.psnr import psnr

HALF = torch.float16


def nearest(vq: VectorQuantizer, z: Tensor) -> Tensor:
    """Distances and argmin in float16."""
    flat, codebook = z.flatten(2).transpose(1, 2).to(HALF), vq.embedding.weight.to(HALF)
    return (codebook.square().sum(1) - 2 * (flat @ codebook.t())).argmin(-1)


def feedback(layer: graphs.Feedback, hidden: Tensor) -> Tensor:
    """The product of the token layout in float16."""
    return F.linear(hidden.to(HALF), layer.weight.to(HALF), layer.bias.to(HALF))


def attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """Scores, softmax and its sums in float16."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return (weights / weights.sum(-1, keepdim=True)) @ v


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Sums and squares in float16, as a norm that was taken apart computes them."""
    grouped = x.unflatten(1, (groups, -1)).flatten(2)
    centred = grouped - grouped.mean(2, keepdim=True)
    scaled = centred * (centred.square().mean(2, keepdim=True) + eps).rsqrt()
    shape = (1, -1, *[1] * (x.dim() - 2))
    return scaled.unflatten(2, (-1, *x.shape[2:])).flatten(1, 2) * weight.view(shape) + bias.view(
        shape
    )


def layer_norm(x: Tensor, shape: list[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt() * weight + bias


def pixels(signal: Tensor) -> Tensor:
    """The last conversion in float16."""
    scaled = ((signal + 1) * 127.5).clamp(0, 255).round()
    return scaled.permute(0, 2, 3, 1).to(torch.uint8)


ISLANDS: dict[str, list[Any]] = {
    "as exported": [],
    "without: distances to the codebook": [patch.object(VectorQuantizer, "nearest", nearest)],
    "without: norm statistics": [
        patch.object(F, "group_norm", group_norm),
        patch.object(F, "layer_norm", layer_norm),
    ],
    "without: softmax": [patch.object(F, "scaled_dot_product_attention", attention)],
    "without: feedback product": [patch.object(graphs.Feedback, "forward", feedback)],
    "without: pixels": [patch.object(graphs, "to_pixels", pixels)],
}


def imagine(
    model: nn.Module, precision: Precision, clip: Clip, context: int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (horizon, H, W, 3) imagined, and the codes of the real ones."""
    deployed = family_of(model).deployment(model, "token", precision)
    backend = module_backend(deployed, name="modules", precision=precision)
    frames = np.stack(list(rollout(backend, clip, context, horizon)))
    encoder = backend.engines["encoder"]
    feeds = torch.from_numpy(clip.frames).split(backend.encode_batch)
    codes = [encoder.run({"frames": part})["codes"].numpy() for part in feeds]
    return frames, np.concatenate(codes)


@torch.inference_mode()
def largest_activation(model: nn.Module, size: int) -> float:
    """Of any module, on frames that are black, white, noise and saturated colours, in float32."""
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3))
    frames = [np.zeros_like(noise), np.full_like(noise, 255), noise, (noise > 127) * 255]
    reference = reference_model(model)
    largest, conditioned = 0.0, reference.config.temporal.num_actions > 0

    def look(module: nn.Module, given: object, output: object) -> None:
        nonlocal largest
        if isinstance(output, Tensor) and output.is_floating_point():
            largest = max(largest, float(output.abs().max()))

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    for frame in frames:
        latents, _ = reference.encode(torch.from_numpy(frame.astype(np.uint8))[None])
        actions = torch.zeros(1, 1, dtype=torch.int64) if conditioned else None
        reference.decode(reference.temporal_model(latents, actions))
    for hook in hooks:
        hook.remove()
    return largest


def main(
    model: Annotated[str, typer.Argument(help="A model directory, .pt or preset.")],
    clip: Annotated[Path, typer.Option(help="Real frames; with actions if the model has them.")]
    = SAMPLE_CLIP,
    context: int = 8,
) -> None:  # fmt: skip
    loaded = reference_model(load_model(model))
    horizon = 2 * loaded.config.temporal.context
    size = loaded.config.vqvae.image_size
    real = read_clip(clip, size=size, count=context + horizon)
    expected, codes = imagine(loaded, "fp32", real, context, horizon)
    print(f"| float32 islands | codes equal | first frame | worst of {horizon} frames |")
    print("|---|---:|---:|---:|")
    for name, patches in ISLANDS.items():
        with ExitStack() as island:
            for change in patches:
                island.enter_context(change)
            got, own_codes = imagine(loaded, "fp16", real, context, horizon)
        errors = np.square(got.astype(float) - expected).mean((1, 2, 3))
        print(
            f"| {name} | {(own_codes == codes).mean():.2%} | {psnr(float(errors[0])):.1f} dB "
            f"| {psnr(float(errors.max())):.1f} dB |",
            flush=True,
        )
    print(f"\nlargest activation: {largest_activation(loaded, size):.0f}")


if __name__ == "__main__":
    run_study(main)
