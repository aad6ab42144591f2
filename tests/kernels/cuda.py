"""`python -m tests.kernels.cuda`: write cuda.json anew, from the onnxruntime-gpu that is installed.

ONNX Runtime is asked for its kernels, so all its providers must load: on a machine with a GPU and
TensorRT 10.
"""

import json
from typing import Any

from tests.kernels import FOLDER

PROVIDER = "CUDAExecutionProvider"
NO_END = 2**31 - 1  # ONNX Runtime's version of a kernel that later opsets use too


def main() -> None:
    import onnxruntime
    import tensorrt  # noqa: F401, I001  # and its own
    import torch  # noqa: F401  # brings CUDA's libraries
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    write(onnxruntime.__version__, get_all_opkernel_def())


def write(version: str, definitions: list[Any]) -> None:
    kernels: dict[str, list[dict[str, Any]]] = {}
    for kernel in definitions:
        if kernel.provider == PROVIDER:
            since, until = kernel.version_range
            name = f"{kernel.domain or 'ai.onnx'}::{kernel.op_name}"
            kernels.setdefault(name, []).append(
                {
                    "since": since,
                    "until": None if until == NO_END else until,
                    "types": {k: _names(v) for k, v in sorted(kernel.type_constraints.items())},
                }
            )
    lines = [f"{json.dumps(name)}: {json.dumps(kernels[name])}" for name in sorted(kernels)]
    head = f'{{"onnxruntime-gpu": "{version}", "provider": "{PROVIDER}", "kernels": {{\n'
    (FOLDER / "cuda.json").write_text(head + ",\n".join(lines) + "\n}}\n")


def _names(types: list[str]) -> list[str]:
    """Tensors by their element alone: "tensor(float16)" as "float16"."""
    return sorted(name[7:-1] if name.startswith("tensor(") else name for name in types)


if __name__ == "__main__":
    main()
