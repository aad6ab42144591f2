"""Plans of bundles whose weights are integers."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Bundles
from wmdeploy.engines.trt.plans import BuildOptions, build_plans

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: the extra rtx brings it")


def test_plans_keep_integer_weights(bundles: Bundles, tmp_path: Path) -> None:
    sizes = {}
    for weights in ("float", "int8"):
        shutil.copytree(bundles(precision="fp16", weights=weights).path, tmp_path / weights)
        options = BuildOptions(
            bundle=tmp_path / weights, architectures=("sm_89",), graphs=("step",)
        )
        ((record, made),) = build_plans(options)
        assert made and record.weight_bytes is not None
        sizes[weights] = record.weight_bytes
    assert sizes["int8"] < sizes["float"]
