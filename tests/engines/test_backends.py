"""One contract for all backends."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from tests.conftest import MICRO, Bundles, future_pixels
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import BACKENDS, Settings, load_backend
from wmdeploy.engines.ort.cpu import inference_session
from wmdeploy.engines.ort.gpu import CUDA
from wmdeploy.errors import BackendError, MissingError
from wmdeploy.families.reference.graphs import deployment
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.arrays import NUMPY, Array, Arrays
from wmdeploy.programs.engine import Backend, Engine
from wmdeploy.programs.inputs import check_feeds
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.session import Session

S = MICRO.temporal.context
Variant = tuple[str, str]
VARIANTS = [
    ("eager", "token"),
    ("ort-cpu", "token"),
    ("ort-cpu", "latent"),
    ("openvino", "token"),
    ("openvino", "latent"),
    pytest.param(("compile", "token"), marks=pytest.mark.slow),
    pytest.param(("aoti", "token"), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=VARIANTS, ids="-".join)
def backend(request: pytest.FixtureRequest, bundles: Bundles) -> Backend:
    name, layout = request.param
    return load_or_skip(name, bundles(layout))


def load_or_skip(name: str, bundle: Bundle) -> Backend:
    """Skip only what is not installed: a refusal is a failure."""
    try:
        return load_backend(name, bundle)
    except MissingError as error:
        pytest.skip(str(error))


def modules(model: WorldModel, layout: str = "token") -> Backend:
    """The graphs' own PyTorch modules as a backend: fast to make, for tests of the session."""
    return module_backend(deployment(model, layout, "fp32"), name="modules")


def ones(engine: Engine, batch: int, arrays: Arrays = NUMPY) -> dict[str, Array]:
    return {s.name: arrays.put(np.ones(s.sizes(batch), s.dtype)) for s in engine.inputs}


def assert_same_pixels(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for roundings that fall the other way."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_backend_imagines_what_the_baseline_imagines(
    backend: Backend, micro: WorldModel, frames: np.ndarray
) -> None:
    session = Session(backend)
    session.reset(frames[:4])
    imagined = np.concatenate([session.step() for _ in range(2 * S)])  # far past the window
    assert_same_pixels(imagined, future_pixels(micro, frames[:4], 2 * S))


def test_engine_has_the_contract(backend: Backend) -> None:
    for name, engine in backend.engines.items():
        assert engine.name == name and engine.inputs and engine.outputs
        batch = min(2, backend.encode_batch)  # 1 where another batch size costs a compilation
        feeds = ones(engine, batch, backend.arrays)
        check_feeds(engine, feeds)
        outputs = engine.run(feeds)
        engine.synchronize()
        assert list(outputs) == [spec.name for spec in engine.outputs]
        for spec in engine.outputs:
            assert type(outputs[spec.name]) is type(feeds[engine.inputs[0].name])
            value = backend.arrays.host(outputs[spec.name])
            assert value.shape == spec.sizes(batch) and value.dtype == spec.dtype


def test_outputs_are_the_callers_own(backend: Backend) -> None:
    """Of a backend without `memory`: neither the next run nor an input's owner writes over them."""
    for engine in backend.engines.values():
        feeds = ones(engine, 1, backend.arrays)
        outputs = engine.run(feeds)
        kept = {name: backend.arrays.host(value) for name, value in outputs.items()}
        with backend.arrays.scope():
            engine.run({name: value * 2 for name, value in feeds.items()})
            for value in feeds.values():
                value[:] = 0
        for name, value in kept.items():
            np.testing.assert_array_equal(backend.arrays.host(outputs[name]), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("position"), 'step: input "position" is missing'),
        (lambda f: f.update(extra=np.ones(1)), 'input "extra" is unknown; expected token'),
        (
            lambda f: f.update(token=np.ones((1, 3), np.float32)),
            r'input "token": got float32 \(1, 3\), expected float32 \(B, 32\)',
        ),
        (lambda f: f.update(position=np.ones(1)), "got float64 .* expected int64"),
        (lambda f: f.update(position=np.zeros(2, np.int64)), "got batches of"),
    ],
)
def test_wrong_feeds_say_what_was_given_and_expected(
    micro: WorldModel, change: object, message: str
) -> None:
    engine = modules(micro).engines["step"]
    feeds = ones(engine, batch=1)
    change(feeds)  # type: ignore[operator]
    with pytest.raises(BackendError, match=message):
        check_feeds(engine, feeds)


def test_unknown_backend_lists_the_known_ones(bundles: Bundles) -> None:
    with pytest.raises(BackendError, match="got 'cuda', expected one of eager, eager-fp16"):
        load_backend("cuda", bundles())


def test_provider_that_is_not_there_is_refused(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundles().checked_graph("step")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(MissingError, match="has no CUDAExecutionProvider here; it has .*CPU"):
        inference_session(path, str(path), onnxruntime.SessionOptions(), [(CUDA, {})])


def test_provider_that_gives_way_to_another_is_refused(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [CUDA, "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    silent = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **more: silent)
    path = bundles().checked_graph("step")
    with pytest.raises(BackendError, match="asked ONNX Runtime for CUDAExecutionProvider, got"):
        inference_session(path, str(path), onnxruntime.SessionOptions(), [(CUDA, {})])


@pytest.mark.parametrize("name", [n for n, entry in BACKENDS.items() if entry.device == "cuda"])
def test_backend_of_a_gpu_says_that_there_is_none(name: str, bundles: Bundles) -> None:
    with pytest.raises(BackendError, match="GPU|CPU build|no TensorRT here"):
        load_backend(name, bundles(precision="fp16"))


def test_device_that_is_not_there_is_refused(bundles: Bundles) -> None:
    with pytest.raises(BackendError, match="backend eager: .*(CPU build|no NVIDIA GPU)"):
        load_backend("eager", bundles(), Settings(device="cuda"))


def test_every_backend_name_resolves() -> None:
    import importlib

    for entry in BACKENDS.values():
        module, _, function = entry.loader.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_importing_the_registry_imports_no_backend() -> None:
    code = "import sys, wmdeploy.engines.base; print({'torch', 'onnxruntime'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.strip() == "set()"
