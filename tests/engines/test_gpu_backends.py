"""Every backend of a GPU, on one and on its stand-in: the baseline's frames, never stale."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import MICRO, Bundles, future_pixels
from tests.stand_in import machine
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import BACKENDS, Settings, load_backend
from wmdeploy.engines.trt.plans import BuildOptions, build_plans
from wmdeploy.errors import MissingError
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.session import Session

S = MICRO.temporal.context
RUNNERS = [("eager", "fp32"), ("compile", "fp32"), ("cudagraph", "fp32"), ("ort-cuda", "fp32")]
RUNNERS += [("compile", "fp16")]
RUNNERS += [(name, "fp16") for name, entry in sorted(BACKENDS.items()) if entry.device == "cuda"]
UNSTEADY = ("ort-cuda-nhwc",)  # its GroupNorm adds in no fixed order: seen on an H100
# torch.compile and eager float16 ask torch itself for a GPU
ON_STAND_IN = [r for r in RUNNERS if not r[0].startswith("compile") and r[0] != "eager-fp16"]


def load_on_gpu(name: str, bundle: Bundle) -> Backend:
    """A backend, with its plans built where it wants some; skip only what is not installed."""
    try:
        if name.startswith("tensorrt"):
            path = Path(tempfile.mkdtemp()) / "bundle"  # the bundle is other tests', too
            shutil.copytree(bundle.path, path)
            build_plans(BuildOptions(bundle=path, flavour=name))
            bundle = Bundle.open(path)
        return load_backend(name, bundle, Settings("cuda"))
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(("gpu", *r), id="-".join(r), marks=pytest.mark.gpu) for r in RUNNERS),
        *(pytest.param(("stand-in", *r), id="-".join(("stand-in", *r))) for r in ON_STAND_IN),
    ],
)
def backend(request: pytest.FixtureRequest, bundles: Bundles) -> Iterator[Backend]:
    place, name, precision = request.param
    bundle = bundles(precision=precision)
    if place == "gpu":
        yield load_on_gpu(name, bundle)
        return
    with machine() as gpu:
        loaded = load_on_gpu(name, bundle)
        with gpu.running():
            yield loaded


def psnr(got: np.ndarray, expected: np.ndarray) -> float:
    mse = np.square(got.astype(float) - expected.astype(float)).mean()
    return float(10 * np.log10(255**2 / max(mse, 1e-9)))


def test_gpu_backend_imagines_what_the_baseline_imagines(
    backend: Backend, micro: WorldModel, frames: np.ndarray
) -> None:
    session = Session(backend)
    session.reset(frames[:3])
    imagined = np.concatenate([session.step() for _ in range(2 * S)])
    expected = future_pixels(micro, frames[:3], 2 * S)
    assert psnr(imagined[:1], expected[:1]) >= 45
    assert min(psnr(a, b) for a, b in zip(imagined, expected, strict=True)) >= 38


def test_captured_graphs_never_see_stale_keys(backend: Backend, frames: np.ndarray) -> None:
    """After a reset, after the window slides, when two sessions alternate, at another batch."""
    alone = Session(backend)
    alone.reset(frames[:3])
    expected = [alone.step() for _ in range(2 * S)]
    one, two, many = Session(backend), Session(backend), Session(backend, batch=2)
    for _ in range(2):
        one.reset(frames[:3])
        two.reset(frames[10:14])
        many.reset(frames[:3], rows=[0])
        many.reset(frames[20:22], rows=[1])
        for frame in expected:
            again = one.step()
            if backend.name in UNSTEADY:
                assert psnr(again, frame) >= 50
            else:
                np.testing.assert_array_equal(again, frame)
            two.step()
            assert psnr(many.step()[:1], frame) >= 38  # another batch, other kernels


def test_a_backend_that_refuses_is_no_skip(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is installed and does not work is a failure of ours."""
    from wmdeploy.engines.ort import gpu as ort_gpu
    from wmdeploy.errors import BackendError

    def refuse(*arguments: object) -> None:
        raise BackendError("ONNX Runtime refuses the graph")

    bundle = bundles()  # exported before torch thinks that it has a GPU
    with machine():
        monkeypatch.setattr(ort_gpu, "inference_session", refuse)
        with pytest.raises((BackendError, pytest.skip.Exception)) as caught:
            load_on_gpu("ort-cuda", bundle)
    assert caught.type is BackendError
