"""A world model as the four graphs of a deployment: encoder, prefill, step, decoder.

Two layouts. `latent` is the model as written. `token` is an exact rewriting: nothing non-linear
stands between the output projection and the next input projection, so a prediction is fed back as
token' = (W_in·W_out)·hidden + (W_in·b_out + b_in), a D×D product; W_in moves to the encoder and
W_out to the decoder. The modules here are exported by `exporters` and compiled by `engines`.
"""

import dataclasses
import functools
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wmdeploy.families.family import Deployment, Graph
from wmdeploy.families.half import graph_of
from wmdeploy.families.reference.student_graph import GraphStudent, with_student
from wmdeploy.families.reference.temporal import TemporalBlock
from wmdeploy.families.reference.vqvae import VectorQuantizer
from wmdeploy.families.reference.world_model import WorldModel, to_pixels, to_signal
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import BATCH, Call, DType, Programs, Shape, TensorSpec


class GraphEncoder(nn.Module):
    """frames (B, H, W, 3) uint8 -> token (B, D) or latent (B, L), and codes (B, N) int64."""

    def __init__(self, model: WorldModel, project: bool) -> None:
        super().__init__()
        self.encoder = model.vqvae.encoder
        self.vq = model.vqvae.vq
        self.project = model.temporal_model.latent_proj if project else None

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.encoder.conv_out.weight.dtype
        codes = self.vq.nearest(self.encoder(to_signal(frames).to(dtype)).float())
        latent = self.vq.lookup(codes).flatten(1)
        if self.project is not None:
            latent = self.project(latent.to(dtype))
        return latent.to(dtype), codes


class GraphDecoder(nn.Module):
    """hidden (B, D) or latent (B, L) -> frame (B, H, W, 3) uint8."""

    def __init__(self, model: WorldModel, project: bool) -> None:
        super().__init__()
        self.latent_shape = model.config.vqvae.latent_shape
        self.decoder = model.vqvae.decoder
        self.project = model.temporal_model.output_proj if project else None

    def forward(self, hidden: Tensor) -> Tensor:
        latent = hidden if self.project is None else self.project(hidden)
        latent = latent.to(self.decoder.conv_out.weight.dtype)
        return to_pixels(self.decoder(latent.unflatten(1, self.latent_shape)))


class Feedback(nn.Module):
    """hidden (..., D) -> next token (..., D): output and input projection as one product.

    The product of the weights is computed in float64, and the layer stays in float32 when the rest
    is float16, because a rollout feeds its output back again and again.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        inward, outward = model.temporal_model.latent_proj, model.temporal_model.output_proj
        weight = torch.zeros(len(inward.weight), outward.weight.shape[1], dtype=torch.float64)
        bias = inward.bias.double()
        # in slices: float64 copies of both whole matrices would be four times the larger one
        for rows in torch.arange(len(outward.weight)).split(2**14):
            part = inward.weight[:, rows].double()  # (D, rows)
            weight += part @ outward.weight[rows].double()
            bias = bias + part @ outward.bias[rows].double()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden.float(), self.weight, self.bias)


class Transformer(nn.Module):
    """What prefill and step share: the blocks, and the ends that the layout decides.

    Args:
        feedback: of the token layout; None for the latent one.
    """

    positions: Tensor

    def __init__(self, model: WorldModel, feedback: "Feedback | None") -> None:
        super().__init__()
        temporal = model.temporal_model
        self.layers = temporal.layers
        self.norm = temporal.norm
        self.action_embedding = temporal.action_embedding if temporal.config.num_actions else None
        self.inward: nn.Module = nn.Identity() if feedback else temporal.latent_proj
        self.outward: nn.Module = feedback or temporal.output_proj
        self.register_buffer("positions", temporal.positions)

    def blocks(self) -> list[TemporalBlock]:
        return cast(list[TemporalBlock], list(self.layers))

    def embed(self, token: Tensor, positions: Tensor, action: Tensor | None) -> Tensor:
        """(..., D) or (..., L), (..., D), (...) int64 -> (..., D)."""
        x = self.inward(token.to(positions.dtype)) + positions
        return x if self.action_embedding is None else x + self.action_embedding(action)

    def following(self, hidden: Tensor, dtype: torch.dtype) -> Tensor:
        """The next token (B, D) or latent (B, L), in `dtype`, by the hidden state (B, D)."""
        return self.outward(hidden).to(dtype)


class GraphPrefill(Transformer):
    """A window of tokens or latents at once.

    tokens (B, S, D) or latents (B, S, L), length (B,) int64 in [1, S], [actions (B, S) int64] ->
    hidden (B, D) and next token or latent after the last of the `length` frames, keys and values
    (layers, B, heads, S, head_dim). Entries from `length` on are not read, but must be finite.
    """

    def forward(
        self, tokens: Tensor, length: Tensor, actions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.embed(tokens, self.positions, actions)
        keys, values = [], []
        for layer in self.blocks():
            q, k, v = layer.self_attention.project(x)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = layer.finish(x, layer.self_attention.merge(attended))
            keys.append(k)
            values.append(v)
        hidden = self.norm(newest(x, length))
        following = self.following(hidden, tokens.dtype)
        return hidden, following, torch.stack(keys), torch.stack(values)


class GraphStep(Transformer):
    """One frame with the KV cache; every row of the batch is at its own position.

    token (B, D) or latent (B, L), position (B,) int64 in [0, S), keys and values
    (layers, B, heads, S, head_dim), [action (B,) int64] -> hidden, next token or latent, keys and
    values with this frame's entry at `position`. Entries from `position` on are not read.
    """

    def forward(
        self,
        token: Tensor,
        position: Tensor,
        keys: Tensor,
        values: Tensor,
        action: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        slots = torch.arange(keys.shape[3], device=keys.device).view(1, 1, -1, 1)  # (1, 1, S, 1)
        now = position.view(-1, 1, 1, 1)
        write = slots == now  # (B, 1, S, 1)
        seen = (slots <= now).transpose(2, 3)  # (B, 1, 1, S)
        x = self.embed(token, self.positions[position], action).unsqueeze(1)  # (B, 1, D)
        new_keys, new_values = [], []
        for i, layer in enumerate(self.blocks()):
            q, k, v = layer.self_attention.project(x)  # (B, heads, 1, head_dim)
            k = torch.where(write, k, keys[i])
            v = torch.where(write, v, values[i])
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            x = layer.finish(x, layer.self_attention.merge(attended))
            new_keys.append(k)
            new_values.append(v)
        hidden = self.norm(x.squeeze(1))
        following = self.following(hidden, token.dtype)
        return hidden, following, torch.stack(new_keys), torch.stack(new_values)


class BaselinePrediction(nn.Module):
    """The baseline's prefill: the transformer as written, over the frames that there are.

    latents (B, S, L), length (B,) int64, [actions (B, S)] -> next latent (B, L).
    """

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.temporal = model.temporal_model

    def forward(self, latents: Tensor, length: Tensor, actions: Tensor | None = None) -> Tensor:
        frames = int(length.max())
        now = None if actions is None else actions[:, :frames]
        given = latents[:, :frames].to(self.temporal.latent_proj.weight.dtype)
        predicted = self.temporal(given, now).to(latents.dtype)  # (B, frames, L)
        return predicted[torch.arange(len(length), device=length.device), length - 1]


def newest(values: Tensor, length: Tensor) -> Tensor:
    """(B, S, X) and length (B,) in [1, S] -> (B, X): the last of the first `length` entries."""
    last = (length - 1).view(-1, 1, 1).expand(-1, 1, values.shape[2])
    return values.gather(1, last).squeeze(1)


ISLANDS = (VectorQuantizer, Feedback)  # float32 in graphs of float16


def deployment(model: WorldModel, layout: str, precision: Precision) -> Deployment:
    """The four graphs of a world model, and its programs.

    Each graph is built when it is asked for and shares the model's weights in fp32; fp16 copies the
    weights of that one graph.
    """
    config = model.config.temporal
    token = layout == "token"
    dtype: DType = "float32" if precision == "fp32" else "float16"
    name = "token" if token else "latent"
    width = config.d_model if token else model.config.vqvae.latent_values
    side = model.config.vqvae.image_size
    pixels: Shape = (BATCH, side, side, 3)
    cache: Shape = (config.layers, BATCH, config.heads, config.context, config.head_dim)

    one = TensorSpec(name, dtype, (BATCH, width))
    hidden = TensorSpec("hidden", dtype, (BATCH, config.d_model))
    keys, values = (TensorSpec(n, dtype, cache) for n in ("keys", "values"))
    codes = TensorSpec("codes", "int64", (BATCH, model.config.vqvae.positions))
    predicted = (hidden, TensorSpec(f"next_{name}", dtype, (BATCH, width)))
    new_cache = tuple(TensorSpec(f"next_{n}", dtype, cache) for n in ("keys", "values"))
    window = [
        TensorSpec(f"{name}s", dtype, (BATCH, config.context, width)),
        TensorSpec("length", "int64", (BATCH,)),
    ]
    now = [one, TensorSpec("position", "int64", (BATCH,)), keys, values]
    if config.num_actions:
        window.append(TensorSpec("actions", "int64", (BATCH, config.context)))
        now.append(TensorSpec("action", "int64", (BATCH,)))

    @functools.cache
    def feedback() -> Feedback | None:  # one for prefill and step
        return Feedback(model) if token else None

    graph = functools.partial(graph_of, precision=precision, islands=ISLANDS)
    shown, frame = (hidden if token else one,), (TensorSpec("frame", "uint8", pixels),)
    student = model.config.student
    students = (
        {}
        if student is None
        else {f"decoder-{student.name}": graph(lambda: GraphStudent(model, token), shown, frame)}
    )
    programs = _programs(
        one, hidden, codes, (keys, values), context=config.context, actions=config.num_actions
    )
    if student is not None:
        programs = with_student(programs, student.name)
    return Deployment(
        graphs={
            "encoder": graph(
                lambda: GraphEncoder(model, token),
                (TensorSpec("frames", "uint8", pixels),),
                (one, codes),
            ),
            "prefill": graph(
                lambda: GraphPrefill(model, feedback()),
                tuple(window),
                (*predicted, keys, values),
            ),
            "step": graph(
                lambda: GraphStep(model, feedback()), tuple(now), (*predicted, *new_cache)
            ),
            "decoder": graph(lambda: GraphDecoder(model, token), shown, frame),
            **students,
        },
        programs=programs,
    )


def _programs(
    record: TensorSpec,
    hidden: TensorSpec,
    codes: TensorSpec,
    cache: tuple[TensorSpec, ...],
    *,
    context: int,
    actions: int,
) -> Programs:
    """The step while the window grows, the prefill once it slides.

    The cache is behind by one: a step first takes up the newest frame, real or imagined.

    Args:
        record: a token or a latent.
        hidden: what the decoder renders a token from; a latent is rendered itself.
    """
    name, token = record.name, record.name == "token"
    action = TensorSpec("action", "int64", (BATCH,)) if actions else None
    shown = {"state.shown": "hidden"} if token else {}
    predicted = {f"new.{name}": f"next_{name}", **shown}
    window = {f"{name}s": f"window.{name}", "length": "length"}
    now = {name: f"newest.{name}", "position": "position"}
    if action is not None:
        window["actions"], now["action"] = "window.action", "action"
    now |= {spec.name: f"state.{spec.name}" for spec in cache}
    return Programs(
        context=context,
        keep=context,
        action=action,
        num_actions=actions,
        state=(*cache, TensorSpec("shown", hidden.dtype, hidden.shape)) if token else cache,
        records=(record,),
        outputs=(codes,),
        encode=(Call("encoder", {"frames": "frame"}, {f"new.{name}": name, "out.codes": "codes"}),),
        predict=(
            Call("step", now, predicted | {f"state.{s.name}": f"next_{s.name}" for s in cache}),
        ),
        refresh=(Call("prefill", window, predicted | {f"state.{s.name}": s.name for s in cache}),),
        refresh_predicts=True,
        render=(
            Call(
                "decoder",
                {"hidden": "state.shown"} if token else {name: f"newest.{name}"},
                {"frame": "frame"},
            ),
        ),
    )


def baseline_deployment(model: WorldModel, precision: Precision = "fp32") -> Deployment:
    """The model as its authors run it, under the same contract: the window for every frame."""
    latent = deployment(model, "latent", precision)

    def predict() -> Graph:
        signature = latent.graphs["prefill"]()
        taken, given = signature.inputs, signature.outputs[1:2]
        return graph_of(lambda: BaselinePrediction(model), taken, given, precision, ISLANDS)()

    programs = latent.programs
    (prefill,) = programs.refresh
    every = (dataclasses.replace(prefill, gives={"new.latent": "next_latent"}),)
    graphs = {n: build for n, build in latent.graphs.items() if n not in ("prefill", "step")}
    return Deployment(
        graphs={**graphs, "prefill": predict},
        programs=dataclasses.replace(programs, state=(), predict=every, refresh=every),
    )
