"""The tokenizer beside plain functions over the same tensors."""

import copy

import pytest
import torch

from tests.families.tokens.published import PublishedTokenizer
from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.families.tokens import graphs
from wmdeploy.families.tokens.network import TokensModel
from wmdeploy.families.tokens.tokenizer import to_signal


@pytest.fixture(scope="module")
def model(tiny: TokensModel) -> TokensModel:
    """Norms that scale and shift, biases, and variances so small that the norms' epsilon counts."""
    model = copy.deepcopy(tiny)
    random = torch.Generator().manual_seed(0)
    for name, tensor in model.tokenizer.state_dict().items():
        if "norm" in name or name.endswith("bias"):
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=random))
    for first in (model.tokenizer.encoder.conv_in, model.tokenizer.decoder.conv_in):
        first.weight.data.mul_(0.005)
        first.bias.data.mul_(0.005)  # type: ignore[union-attr]
    return model


@pytest.fixture(scope="module")
def published(model: TokensModel) -> PublishedTokenizer:
    return PublishedTokenizer(model.state_dict())


@torch.inference_mode()
def test_frames_become_the_published_tokens(
    model: TokensModel, published: PublishedTokenizer
) -> None:
    frames = torch.from_numpy(read_clip(SAMPLE_CLIP, size=32, count=8).frames)
    others = torch.rand(24, 1, 1, 3, generator=torch.Generator().manual_seed(1)) * frames.repeat(
        3, 1, 1, 1
    )
    frames = torch.cat([frames, others.to(torch.uint8)])
    tokenizer = model.tokenizer
    signal = to_signal(frames, tokenizer.encoder.conv_in)
    expected = published.latents(frames)
    latents = tokenizer.pre_quant_conv(tokenizer.encoder(signal))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    tokens = published.tokens(frames)
    assert len(tokens.unique()) > 8
    assert torch.equal(tokenizer.encode(frames), tokens)
    assert torch.equal(graphs.Encode(model)(frames), tokens)


@torch.inference_mode()
def test_tokens_become_the_published_pictures(
    model: TokensModel, published: PublishedTokenizer
) -> None:
    tokens = torch.arange(32).view(8, 4) * 7 % 64
    pictures = published.pictures(tokens)
    inside = (pictures > 0) & (pictures < 255)
    assert inside.float().mean() > 0.5 and pictures[inside].std() > 20
    for made in (model.tokenizer.decode(tokens), graphs.Decode(model)(tokens)):
        # whole levels below: fractions are cut off
        behind = pictures - made
        assert behind.min() > -0.01 and behind.max() < 1.01
