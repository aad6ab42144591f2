"""Bundles with a fault in a graph. No test is in here."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx

from wmdeploy.bundle import Bundle, describe_files
from wmdeploy.manifest import write_manifest


def planted(
    bundle: Bundle, graph: str, target: Path, fault: Callable[[onnx.ModelProto], object]
) -> Bundle:
    """A copy with a fault in a graph, and hashes that fit."""
    shutil.copytree(bundle.path, target)
    path = target / f"{graph}.onnx"
    model = onnx.load(path)
    fault(model)
    onnx.save(model, path)  # with its weights, which are now its own
    write_manifest(dataclasses.replace(bundle.manifest, files=describe_files(target)), target)
    return Bundle.open(target)
