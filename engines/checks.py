"""What a runtime says of a graph, and what it answers, compared with the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wmdeploy.errors import BackendError
from wmdeploy.manifest import GraphRecord
from wmdeploy.programs.contract import BATCH, TensorSpec


def check_tensors(
    path: Path, tensors: Iterable[tuple[str, str, Sequence[object]]], record: GraphRecord
) -> None:
    """Compare the inputs and outputs that a runtime sees in a graph with the manifest's.

    Args:
        tensors: name, dtype and sizes of each; a size that is no int is not static.

    Raises:
        BackendError: names, dtypes or shapes are others.
    """
    given = list(tensors)
    specs = {spec.name: spec for spec in (*record.inputs, *record.outputs)}
    if {name for name, _, _ in given} != specs.keys() or len(given) != len(specs):
        raise BackendError(f"{path}: has other tensors than the manifest says; export again")
    for name, dtype, shape in given:
        spec = specs[name]
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(size, int) if wanted == BATCH else size == wanted
            for size, wanted in zip(shape, spec.shape, strict=True)
        )
        if dtype != spec.dtype or not fits:
            raise BackendError(
                f'{path}: the tensor "{name}" is {dtype} {list(shape)}, the manifest says {spec}; '
                "export again"
            )


def check_results(
    graph: str, specs: Sequence[TensorSpec], results: Sequence[Any], batch: int
) -> None:
    """Compare what a graph answered with what the manifest says, which the graph only declares.

    Raises:
        BackendError: an array is of another dtype or shape.
    """
    for spec, result in zip(specs, results, strict=True):
        expected = tuple(batch if size == BATCH else size for size in spec.shape)
        if not isinstance(result, np.ndarray):
            got = type(result).__name__
        elif result.dtype == spec.dtype and result.shape == expected:
            continue
        else:
            got = f"{result.dtype} {result.shape}"
        raise BackendError(
            f'{graph}: its output "{spec.name}" is {got}, the manifest says {spec}; export again'
        )


def batch_of(specs: Sequence[TensorSpec], arrays: Mapping[str, np.ndarray]) -> int:
    """B of a graph's inputs."""
    spec = next(spec for spec in specs if BATCH in spec.shape)
    return int(arrays[spec.name].shape[spec.shape.index(BATCH)])
