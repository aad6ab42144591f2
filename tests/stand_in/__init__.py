"""A GPU for machines without one: what the engines ask of CUDA, ONNX Runtime's GPU providers and
TensorRT, computed on the CPU, with the rules that a real one holds them to.

Numbers are real: operators of torch and graphs of ONNX run on the CPU. What a GPU forbids is an
error here too: waiting or reading a value inside a capture, an index out of range, an address that
was not captured, a node without a kernel. Speed and the rounding of real kernels cannot be shown.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.stand_in.cuda import Gpu


@contextmanager
def machine() -> Iterator[Gpu]:
    """A block on a machine with a GPU, onnxruntime-gpu, TensorRT 10.16 and TensorRT-RTX 1.7.

    Models are loaded in it; what runs on its GPU is in a block `with gpu.running()` besides.
    """
    from tests.stand_in import ort, trt

    gpu = Gpu()
    with pytest.MonkeyPatch.context() as patch:
        gpu.install(patch)
        gpu.sessions = ort.install(gpu, patch)
        trt.install(gpu, patch)
        yield gpu
