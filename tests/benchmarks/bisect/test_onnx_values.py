"""Values inside an ONNX graph, by the names of its exporter."""

import dataclasses
from pathlib import Path

import onnx

from tests.benchmarks.bisect.faults import (
    ACTED,
    Exact,
    node_of,
)
from tests.conftest import Bundles
from tests.planted import planted
from wmdeploy.benchmarks.bisect.onnx_values import OnnxValues
from wmdeploy.benchmarks.bisect.run import BisectOptions, bisect
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.manifest import write_manifest


def test_names_of_another_exporter_are_believed_if_their_metadata_agrees(
    bundles: Bundles, exact: Exact, tmp_path: Path
) -> None:
    def fault(model: onnx.ModelProto) -> None:
        del node_of(model, "node_silu_2").metadata_props[:]
        moved = node_of(model, "node_silu_4")
        scopes = next(e for e in moved.metadata_props if e.key.endswith("name_scopes"))
        scopes.value = scopes.value.replace("decoder.3.0", "decoder.1.0")

    bundle = planted(bundles(*ACTED), "decoder", tmp_path / "b", fault)
    operations = exact(bundles(*ACTED), "decoder")[0].operations
    trusted = OnnxValues(bundle, "decoder", "ort-cpu", operations)
    careful = OnnxValues(bundle, "decoder", "ort-cpu", operations, distrust=True)
    gone = {row.name for row in trusted.rows} - {row.name for row in careful.rows}
    assert gone == {"silu_2", "silu_4"}
    after = next(row for row in careful.rows if row.name == "conv2d_8")
    assert list(after.nodes.values()) == ["Sigmoid", "Mul", "Conv"]
    recipe = dataclasses.replace(bundle.manifest.recipe, tools={"torch": "2.0"})
    write_manifest(dataclasses.replace(bundle.manifest, recipe=recipe), bundle.path)
    (findings,) = bisect(BisectOptions(bundle=bundle.path, clip=SAMPLE_CLIP, graphs=("decoder",)))
    assert findings.culprit is None and len(findings.nodes) == len(careful.rows)
    assert "exported with torch 2.0, here is" in findings.warnings[0]
