"""A backend's engine on numpy arrays of any float type."""

from collections.abc import Mapping

import numpy as np

from wmdeploy.programs.arrays import Array, Arrays
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Engine


class HostEngine:
    """Feeds an engine from the host, at the same addresses each time: it may be bound to them.

    Args:
        arrays: the inner engine's.
        outside: an engine whose inputs and outputs it shows as its own, floats cast between.
    """

    def __init__(self, inner: Engine, arrays: Arrays, outside: Engine | None = None) -> None:
        shown = inner if outside is None else outside
        self.name = inner.name
        self.inputs: tuple[TensorSpec, ...] = shown.inputs
        self.outputs: tuple[TensorSpec, ...] = shown.outputs
        self._inner, self._arrays = inner, arrays
        self._places: dict[tuple[str, tuple[int, ...]], Array] = {}

    def run(
        self, feeds: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        with self._arrays.scope():
            given = {spec.name: self._put(spec, feeds[spec.name]) for spec in self._inner.inputs}
            made = self._inner.run(given)
            return {
                spec.name: self._arrays.host(made[spec.name]).astype(spec.dtype)
                for spec in self.outputs
            }

    def synchronize(self) -> None:
        """It has finished when `run` returns."""

    def close(self) -> None:
        """The inner engine is its backend's to close."""

    def _put(self, spec: TensorSpec, value: np.ndarray) -> Array:
        there = self._arrays.put(np.ascontiguousarray(value, spec.dtype))
        place: Array = self._places.setdefault((spec.name, value.shape), there)
        if place is not there:
            place[:] = there
        return place
