"""What each graph should answer on real frames, computed from the model as written.

Exporters compare ONNX graphs with this before a bundle appears. The expected values come from
`WorldModel` in float32: the whole window, no cache, no rewritten layout.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from wmdeploy.codes import CodeCount
from wmdeploy.families import Case
from wmdeploy.manifest import DType, Layout, Precision
from wmdeploy.models.graphs import GraphPrefill
from wmdeploy.models.ties import find_ties
from wmdeploy.models.world_model import WorldModel, to_pixels

Tensors = Mapping[str, Tensor]


@torch.inference_mode()
def world_model_cases(
    model: WorldModel, layout: Layout, dtype: DType, frames: Tensor, actions: Tensor | None
) -> dict[str, Case]:
    """One case for each graph, with two rows at different points of the same clip.

    Args:
        model: float32, on the CPU.
        dtype: of the graphs' floating-point inputs.
        frames: (T, H, W, 3) uint8, T >= 2; of more than S frames the first S are used, fewer are
            repeated until the window is full.
        actions: (T,) int64 for a model with actions, else None.
    """
    temporal = model.temporal_model
    size = model.config.temporal.context
    filled = torch.arange(size) % len(frames)  # (S,): which frame stands in each slot
    actions = None if actions is None else actions[None, filled]
    kind = getattr(torch, dtype)

    def project(latents: Tensor) -> Tensor:  # (..., L) -> what this layout passes around
        return latents if layout == "latent" else temporal.latent_proj(latents)

    def both(one: Tensor) -> Tensor:  # (1, S, ...) -> (2, S, ...)
        return one.expand(2, *one.shape[1:]).contiguous()

    latents, codes = model.encode(frames[None, :size])  # (1, T, L), (1, T, N)
    latents = latents[:, filled]  # (1, S, L)
    tokens = project(latents)
    # causal: entry n - 1 is the state after the first n frames
    hidden = temporal.contextualize(temporal.latent_proj(latents), actions)[0]  # (S, D)
    window_actions = None if actions is None else both(actions)
    # keys and values have no other source than the prefill
    _, _, keys, values = GraphPrefill(model, "latent")(
        both(latents), torch.full((2,), size), window_actions
    )

    def predicted(length: Tensor, prefix: str) -> Callable[[Tensors], dict[str, Tensor]]:
        state = hidden[length - 1]  # (2, D)
        following = project(temporal.output_proj(state))
        used = torch.arange(size).view(1, 1, 1, -1, 1) < length.view(1, -1, 1, 1, 1)

        def expected(outputs: Tensors) -> dict[str, Tensor]:
            cache = {
                prefix + name: torch.where(used, value, outputs[prefix + name].float())
                for name, value in (("keys", keys), ("values", values))  # free from `length` on
            }
            return {"hidden": state, f"next_{layout}": following, **cache}

        return expected

    def encoded(outputs: Tensors) -> dict[str, Tensor]:
        chosen = model.vqvae.vq.lookup(outputs["codes"]).flatten(1)
        return {layout: project(chosen), "codes": codes[0, :2]}

    def count_codes(outputs: Tensors) -> CodeCount:
        pair = codes[0, :2].numpy(), outputs["codes"].numpy()
        precision: Precision = "fp32" if dtype == "float32" else "fp16"
        vqvae = model.vqvae
        return find_ties(vqvae.encoder, vqvae.vq, frames[:2].numpy(), *pair, precision).count

    length = torch.tensor([size, size // 2])
    window: dict[str, Tensor] = {f"{layout}s": both(tokens).to(kind), "length": length}
    now: dict[str, Tensor] = {
        layout: tokens[0, length - 1].to(kind),
        "position": length - 1,
        "keys": keys.to(kind),
        "values": values.to(kind),
    }
    if actions is not None and window_actions is not None:
        window["actions"] = window_actions
        now["action"] = actions[0, length - 1]
    state = hidden[length - 1]
    following = temporal.output_proj(state)  # (2, L)
    frame = to_pixels(model.decode(following[:, None])[:, 0])
    shown = {"hidden": state.to(kind)} if layout == "token" else {"latent": following.to(kind)}
    return {
        "encoder": Case({"frames": frames[:2]}, encoded, count_codes),
        "prefill": Case(window, predicted(length, "")),
        "step": Case(now, predicted(length, "next_")),
        "decoder": Case(shown, lambda outputs: {"frame": frame}),
    }
