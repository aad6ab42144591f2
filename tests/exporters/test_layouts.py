"""The weights of the layout that a bundle is not in."""

import copy
from pathlib import Path

import pytest
import torch

from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.exporters.layouts import other_layout_bytes
from wmdeploy.families import save_model
from wmdeploy.families.reference.world_model import WorldModel

pytestmark = pytest.mark.slow


def test_other_layout_weighs_what_its_export_weighs(
    micro_actions: WorldModel, tmp_path: Path
) -> None:
    model = copy.deepcopy(micro_actions)
    for parameter in model.parameters():  # as if trained: an exporter leaves out biases of zero
        parameter.data += 0.01 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1)
        )
    save_model(model, tmp_path / "model")
    layouts: tuple[str, ...] = ("token", "latent")
    manifests = {}
    for layout in layouts:
        options = ExportOptions(
            source=str(tmp_path / "model"),
            output=tmp_path / layout,
            clip=SAMPLE_CLIP,
            layout=layout,
            precision="fp16",
        )
        manifests[layout] = export_bundle(options)[0].manifest
    for mine, other in (layouts, layouts[::-1]):
        counted = other_layout_bytes(manifests[mine], other)
        real = {name: graph.weight_bytes for name, graph in manifests[other].graphs.items()}
        assert counted == pytest.approx(real, abs=300)  # vectors that are small stay in the graph
        for name, size in real.items():
            assert abs(size - manifests[mine].graphs[name].weight_bytes) > 30_000
