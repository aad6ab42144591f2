"""Read what `torch.save` wrote, and build nothing of it but tensors, plain values and numpy's data.

Trainers save more than weights: arguments, paths, objects of their own. torch's `weights_only=True`
refuses such a file whole. Here every name that it does not know stands for an empty placeholder, so
that the weights beside it can be read; nothing that the file names is imported or called.
"""

import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from wmdeploy.errors import CheckpointError
from wmdeploy.files import refuse_pointer

# module and name, as numpy 1 and numpy 2 write them
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")


class Dictionary:
    """In place of an unknown name: a dictionary, which torch's reader lets a pickle fill."""

    def __new__(cls, *arguments: Any) -> Any:
        return OrderedDict()


class Nothing:
    """In place of an unknown name, where its objects have a state that no dictionary takes."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class NumpyType:
    """numpy.dtype: numbers and text, never numpy's own way of reading a type from a pickle."""

    def __init__(self, name: str, *flags: Any) -> None:
        plain = re.fullmatch(r"[biufcSU]\d+", name)
        self.dtype = np.dtype(name) if plain else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.dtype is not None and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """numpy.ndarray: `values` come from as many bytes as they need; None for objects."""

    values: np.ndarray | None = None

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if kind.dtype is not None:
            order: Literal["F", "C"] = "F" if fortran else "C"
            self.values = np.frombuffer(data, kind.dtype).reshape(shape, order=order)

    def tensor(self) -> torch.Tensor | None:
        """The same numbers; None for text and objects."""
        if self.values is None or self.values.dtype.kind not in "biufc":
            return None
        return torch.from_numpy(self.values.astype(self.values.dtype.newbyteorder("=")))


def _scalar(kind: NumpyType, data: bytes) -> Any:
    return None if kind.dtype is None else np.frombuffer(data, kind.dtype)[0].item()


def _no_bytes(*arguments: Any) -> bytes:
    return b""  # others are written as encoded text


def _reconstruct(*arguments: Any) -> NumpyArray:
    return NumpyArray()


_DATA: list[Any] = [
    (NumpyType, "numpy.dtype"),
    (NumpyArray, "numpy.ndarray"),
    (_no_bytes, "builtins.bytes"),
    *((_scalar, f"{module}.scalar") for module in _NUMPY),
    *((_reconstruct, f"{module}._reconstruct") for module in _NUMPY),
]


def read_pickle(path: Path) -> tuple[Any, list[str]]:
    """What a `.pt`, `.pth`, `.bin` or `.ckpt` holds, on the CPU.

    Returns:
        The document, and the names of the classes and functions in it that were not built.

    Raises:
        CheckpointError: it is damaged, or no file of torch.save.
    """
    refuse_pointer(path, CheckpointError)
    unknown: list[str] = []
    try:
        with warnings.catch_warnings(), safe_globals(_DATA):
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            if _is_zip(path):
                unknown = sorted(get_unsafe_globals_in_checkpoint(path))
            try:
                return _load(path, Dictionary, unknown), unknown
            except (pickle.UnpicklingError, TypeError, ValueError):
                return _load(path, Nothing, unknown), unknown
    except pickle.UnpicklingError as error:
        unknown = unknown or re.findall(r"GLOBAL (\S+)", str(error))[:1]
        named = f" ({listed(unknown)})" if unknown else ""
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values{named}, or is no checkpoint at all; "
            "it was not executed. Save it again as {'model_state_dict': model.state_dict()}"
        ) from error
    except Exception as error:  # arbitrary bytes make the unpickler fail in arbitrary ways
        message = str(error) or type(error).__name__
        if "torchscript" in message.lower():
            raise CheckpointError(
                f"{path}: is TorchScript, which is code; it was not executed: save "
                "model.state_dict() in its place"
            ) from error
        first = message.splitlines()[0].partition(". This is an internal")[0]  # of miniz, and long
        raise CheckpointError(f"{path}: damaged or no PyTorch file ({first})") from error


def _load(path: Path, placeholder: type, unknown: list[str]) -> Any:
    with safe_globals([(placeholder, name) for name in unknown]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"  # what torch.save has written since torch 1.6


def listed(names: list[str], most: int = 3) -> str:
    """Names for a message: only the first few, the user's own before those of libraries."""
    libraries = ("builtins.", "collections.", "numpy.", "torch.")
    ordered = sorted(names, key=lambda name: (name.startswith(libraries), name))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:80] for name in ordered[:most]) + more
