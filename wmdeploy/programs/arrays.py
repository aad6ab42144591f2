"""The arrays of a backend: numpy's where it computes on the host, torch's on a device.

Both are indexed and assigned to alike; here is what they do differently. Importing this imports no
torch.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

Array = Any  # np.ndarray or torch.Tensor


class Arrays(Protocol):
    """What a session does with arrays besides indexing them."""

    def scope(self) -> AbstractContextManager[Any]:
        """Around all that makes or changes arrays."""

    def zeros(self, shape: Sequence[int], dtype: str) -> Array: ...

    def put(self, values: np.ndarray) -> Array:
        """On the device; what becomes of `values` later does not change it."""

    def host(self, array: Array) -> np.ndarray:
        """A copy on the host, once the device has finished."""

    def copy(self, array: Array) -> Array: ...

    def join(self, parts: Sequence[Array], axis: int) -> Array:
        """Concatenate."""

    def to_front(self, array: Array, axes: tuple[int, int]) -> Array:
        """A view with these axes as the first two."""


class NumpyArrays:
    def scope(self) -> AbstractContextManager[Any]:
        return _NOTHING

    def zeros(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        return np.zeros(shape, dtype)

    def put(self, values: np.ndarray) -> np.ndarray:
        return np.array(values)

    def host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array)

    def copy(self, array: np.ndarray) -> np.ndarray:
        return np.array(array)

    def join(self, parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
        return np.concatenate(parts, axis)

    def to_front(self, array: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        return np.moveaxis(array, axes, (0, 1))


class TorchArrays:
    """Tensors of torch's inference mode, as engines make them: mixed with others they would let
    torch.compile compile again."""

    def __init__(self, device: "torch.device") -> None:
        import torch

        self._torch, self._device = torch, device

    def scope(self) -> AbstractContextManager[Any]:
        return self._torch.inference_mode()

    def zeros(self, shape: Sequence[int], dtype: str) -> "torch.Tensor":
        kind = getattr(self._torch, dtype)
        return self._torch.zeros(tuple(shape), dtype=kind, device=self._device)

    def put(self, values: np.ndarray) -> "torch.Tensor":
        return self._torch.tensor(values).to(self._device)

    def host(self, array: "torch.Tensor") -> np.ndarray:
        copied: np.ndarray = array.to("cpu", copy=True).numpy()
        return copied

    def copy(self, array: "torch.Tensor") -> "torch.Tensor":
        return array.clone()

    def join(self, parts: "Sequence[torch.Tensor]", axis: int) -> "torch.Tensor":
        return self._torch.cat(list(parts), axis)

    def to_front(self, array: "torch.Tensor", axes: tuple[int, int]) -> "torch.Tensor":
        return array.movedim(axes, (0, 1))


_NOTHING = nullcontext()
NUMPY = NumpyArrays()
