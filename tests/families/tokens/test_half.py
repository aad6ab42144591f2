"""The token family in float16."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.engines.base import load_backend
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families.tokens.family import TokensFamily
from wmdeploy.families.tokens.network import TokensModel
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.session import Session


def forced_logits(session: Session) -> np.ndarray:
    """(frames, K, classes) over real frames, past a start from the newest frame."""
    clip = read_clip(SAMPLE_CLIP, size=32, count=24)
    assert clip.actions is not None
    session.reset(clip.frames[:1])
    made = []
    for at in range(1, 24):
        session.observe(clip.frames[at], clip.actions[at - 1])
        made.append(session.outputs()["logits"][0])
    return np.array(made)


@pytest.mark.slow
def test_draws_are_those_of_float32_but_for_one_in_a_thousand(
    tiny: TokensModel, tmp_path: Path
) -> None:
    """Total variation of the distributions: the chance that a draw differs, with the same noise."""
    options = ExportOptions(
        source="tiny",
        family="tokens",
        seed=3,
        output=tmp_path / "half",
        clip=SAMPLE_CLIP,
        precision="fp16",
        max_batch=2,
    )
    bundle, _ = export_bundle(options)
    kinds = {s.name: s.dtype for s in bundle.manifest.graphs["token"].outputs}
    assert kinds["new_keys_0"] == "float16"
    exact = module_backend(TokensFamily().baseline_deployment(tiny, "fp32"), name="baseline")
    half = load_backend("ort-cpu", bundle)
    mine, theirs = forced_logits(Session(half)), forced_logits(Session(exact))
    assert theirs.std() > 0.5
    ours, reference = (torch.from_numpy(x).softmax(-1) for x in (mine, theirs))
    variation = (ours - reference).abs().sum(-1) / 2
    assert float(variation.mean()) < 1e-3
