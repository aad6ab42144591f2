"""What an adapter writes most: the tensors of its graphs. Imports no torch."""

from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import BATCH, TensorSpec


def floats(name: str, *shape: int, precision: Precision = "fp32") -> TensorSpec:
    """(B, *shape) of float32, or of float16 in that precision."""
    return TensorSpec(name, "float16" if precision == "fp16" else "float32", (BATCH, *shape))


def integers(name: str, *shape: int) -> TensorSpec:
    """(B, *shape) int64."""
    return TensorSpec(name, "int64", (BATCH, *shape))


def pixels(name: str, size: int) -> TensorSpec:
    """(B, size, size, 3) uint8: frames."""
    return TensorSpec(name, "uint8", (BATCH, size, size, 3))
