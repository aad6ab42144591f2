import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import MICRO
from wmdeploy.families.half import to_half
from wmdeploy.families.reference.graphs import Feedback, deployment
from wmdeploy.families.reference.vqvae import VectorQuantizer
from wmdeploy.families.reference.world_model import WorldModel

S = MICRO.temporal.context


def run(model: WorldModel, layout: str, graph: str, *feeds: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        result = deployment(model, layout, "fp32").graphs[graph]().module(*feeds)
    return result if isinstance(result, tuple) else (result,)


@pytest.fixture(scope="module")
def window(micro: WorldModel, frames: np.ndarray) -> Tensor:
    """(2, S, L): two different windows of latents."""
    clips = torch.tensor(np.stack([frames[:S], frames[20 : 20 + S]]))
    return micro.encode(clips)[0]


def test_feedback_is_both_projections_at_once(micro: WorldModel) -> None:
    hidden = torch.randn(5, MICRO.temporal.d_model, generator=torch.Generator().manual_seed(0))
    temporal = micro.temporal_model
    expected = temporal.latent_proj(temporal.output_proj(hidden))
    torch.testing.assert_close(Feedback(micro)(hidden), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", ["token", "latent"])
def test_prefill_is_the_whole_window_for_each_length(
    micro: WorldModel, window: Tensor, layout: str
) -> None:
    temporal = micro.temporal_model
    stream = window if layout == "latent" else temporal.latent_proj(window)
    length = torch.tensor([S, 2])
    hidden, following, _, _ = run(micro, layout, "prefill", stream, length)
    for row, n in enumerate(length.tolist()):
        expected = temporal(window[row : row + 1, :n])[:, -1]
        got = following[row : row + 1]
        want = expected if layout == "latent" else temporal.latent_proj(expected)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            temporal.output_proj(hidden[row : row + 1]), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("layout", ["token", "latent"])
def test_steps_from_an_empty_cache_are_the_prefill(
    micro: WorldModel, window: Tensor, layout: str
) -> None:
    stream = window if layout == "latent" else micro.temporal_model.latent_proj(window)
    shape = (MICRO.temporal.layers, 2, MICRO.temporal.heads, S, MICRO.temporal.head_dim)
    keys, values = torch.full(shape, 9.0), torch.full(shape, -9.0)  # stale entries are not read
    for t in range(S):
        position = torch.full((2,), t)
        hidden, following, keys, values = run(
            micro, layout, "step", stream[:, t], position, keys, values
        )
        expected = run(micro, layout, "prefill", stream, torch.full((2,), t + 1))
        torch.testing.assert_close(hidden, expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(following, expected[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(keys, expected[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, expected[3], rtol=1e-4, atol=1e-5)


def test_rows_of_a_step_are_at_their_own_positions(micro: WorldModel, window: Tensor) -> None:
    tokens = micro.temporal_model.latent_proj(window)
    _, _, keys, values = run(micro, "token", "prefill", tokens, torch.full((2,), S))
    position = torch.tensor([4, 1])
    newest = tokens[torch.arange(2), position]
    together = run(micro, "token", "step", newest, position, keys, values)
    for row in range(2):
        one = slice(row, row + 1)
        alone = run(
            micro, "token", "step", newest[one], position[one], keys[:, one], values[:, one]
        )
        torch.testing.assert_close(together[0][one], alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[2][:, one], alone[2], rtol=1e-4, atol=1e-5)


def test_half_keeps_its_islands_and_leaves_the_original(micro: WorldModel) -> None:
    for name, build in deployment(micro, "token", "fp16").graphs.items():
        half = build().module
        islands = [m for m in half.modules() if isinstance(m, Feedback | VectorQuantizer)]
        kept = {id(t) for m in islands for t in m.state_dict(keep_vars=True).values()}
        for key, tensor in half.state_dict(keep_vars=True).items():
            wanted = torch.float32 if id(tensor) in kept else torch.float16
            assert tensor.dtype == wanted, f"{name}: {key}"
    assert all(p.dtype == torch.float32 for p in micro.parameters())


def test_half_copies_rather_than_converts() -> None:
    layer = torch.nn.Linear(2, 2)
    assert to_half(layer).weight.dtype == torch.float16
    assert layer.weight.dtype == torch.float32
