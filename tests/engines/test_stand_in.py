"""The stand-in of a GPU forbids what a GPU forbids; and what the engines owe to each rule."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import Bundles
from tests.stand_in import machine
from tests.stand_in.cuda import Gpu, round_to_tf32
from wmdeploy.benchmarks.worker.graph_substitution import pytorch_backend, substitute_graphs
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.engines.static import captured
from wmdeploy.engines.trt.plans import BuildOptions, build_plans
from wmdeploy.errors import BackendError, MissingError
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.session import Session
from wmdeploy.quality.predict import encode_frames


@pytest.fixture
def gpu(bundles: Bundles) -> Iterator[Gpu]:
    for precision in ("fp32", "fp16"):  # exported before torch thinks that it has a GPU
        bundles(precision=precision)
    with machine() as gpu, torch.inference_mode():
        yield gpu


@pytest.fixture
def patch(gpu: Gpu) -> Iterator[pytest.MonkeyPatch]:
    """Undone before the stand-in is: monkeypatch is undone after it, and would bring it back."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def rolled(backend: Backend, frames: np.ndarray, steps: int = 8, batch: int = 1) -> np.ndarray:
    session = Session(backend, batch)
    session.reset(frames[:3])
    return np.concatenate([session.step() for _ in range(steps)])


def test_graph_does_its_work_when_it_is_replayed(gpu: Gpu) -> None:
    x, y = torch.ones(3), torch.zeros(3)
    with gpu.running():
        launch = captured(lambda stream: y.copy_(x * 2 + 1))
        y.zero_()
        x.fill_(5)
        assert y.tolist() == [0, 0, 0]
        launch()
    assert y.tolist() == [11, 11, 11] and gpu.replays == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: torch.cuda.synchronize(),
        lambda x: torch.cuda.Stream().synchronize(),
    ],
)
def test_what_a_capture_forbids_is_an_error(gpu: Gpu, work: Any) -> None:
    x = torch.ones(3)
    with gpu.running():
        work(x)
        graph = torch.cuda.CUDAGraph()
        with pytest.raises(RuntimeError, match="capture_end: a broken capture"):
            with torch.cuda.graph(graph):
                work(x)


def test_memory_of_a_pool_is_spoilt_by_its_other_graphs(gpu: Gpu) -> None:
    pool, kept, x = torch.cuda.graph_pool_handle(), [], torch.ones(3)
    with gpu.running():
        first = captured(lambda stream: kept.append(x + 1), pool)
        second = captured(lambda stream: x.add_(0), pool)
        first()
        assert kept[-1].tolist() == [2, 2, 2]
        second()
    assert kept[-1].isnan().all()


def test_tf32_has_ten_bits(gpu: Gpu) -> None:
    x = torch.tensor([[1 + 2**-10, 1 + 2**-11]])
    assert round_to_tf32(x).tolist() == [[1 + 2**-10, 1]]
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with gpu.running():
            assert (x @ x.T).item() == (1 + 2**-10) ** 2 + 1
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_programs_warm_up_on_what_they_are_given(
    gpu: Gpu, bundles: Bundles, frames: np.ndarray
) -> None:
    """A window of length 0 makes an index of -1, which ends a process on a GPU."""
    backend = load_backend("cudagraph", bundles())
    with gpu.running():
        assert rolled(backend, frames).shape[0] == 8


def test_all_captures_are_on_one_stream(gpu: Gpu, bundles: Bundles, frames: np.ndarray) -> None:
    """A pool's memory is not shared by streams."""
    backend = load_backend("cudagraph", bundles())
    with gpu.running():
        rolled(backend, frames)
        rolled(backend, frames, batch=2)
    assert len(gpu.pools) == 1 and sum(gpu.pools.values()) > 0
    # of each batch one of the encoder; prefill, step and decoder have two sides
    assert len(next(iter(gpu.graphs.values()))) == 2 * (1 + 3 * 2)


def test_engines_give_their_memory_back(gpu: Gpu, bundles: Bundles, frames: np.ndarray) -> None:
    backend = load_backend("cudagraph", bundles())
    with gpu.running():
        rolled(backend, frames, steps=1)
        engine = backend.engines["step"]
        backend.close()
        with pytest.raises(AssertionError, match="closed"):
            engine.run(zeros(engine.inputs))


def zeros(specs: tuple[TensorSpec, ...]) -> dict[str, Tensor]:
    return {s.name: torch.zeros(s.sizes(1), dtype=getattr(torch, s.dtype)) for s in specs}


def test_what_a_capture_raises_is_what_is_told(gpu: Gpu, bundles: Bundles, tmp_path: Any) -> None:
    """And not that the capture was broken by it."""
    shutil.copytree(bundles(precision="fp16").path, tmp_path / "bundle")
    build_plans(BuildOptions(bundle=tmp_path / "bundle", flavour="tensorrt", graphs=("step",)))
    from wmdeploy.engines.trt.flavour import load_flavour
    from wmdeploy.engines.trt.plans import find_plan
    from wmdeploy.engines.trt.run import Plan

    bundle = Bundle.open(tmp_path / "bundle")
    flavour = load_flavour("tensorrt")
    record = find_plan(bundle, flavour, "step", "sm_89")
    plan = Plan(flavour, record, bundle.checked_plan(record), torch.device("cpu"))
    made = flavour.new_context

    def failing(engine: Any, cache: Any) -> Any:
        context = made(engine, cache)
        context.trt.fails = lambda: gpu.capture is not None
        return context

    object.__setattr__(flavour, "new_context", failing)
    specs = bundle.manifest.graphs["step"]
    with gpu.running(), pytest.raises(BackendError, match="step: TensorRT could not run the plan"):
        plan.bind(zeros(specs.inputs), zeros(specs.outputs))


@pytest.fixture
def tf32_everywhere() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def outputs_of(engine: Any, frames: np.ndarray) -> Tensor:
    token: Tensor = engine.run({"frames": torch.tensor(frames[:1])})["token"]
    return token


def test_reference_of_a_swap_is_exact(
    gpu: Gpu, bundles: Bundles, micro: WorldModel, frames: np.ndarray, tf32_everywhere: None
) -> None:
    backend = load_backend("ort-cpu", bundles())
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    reference = pytorch_backend(micro, bundles(), backend).engines["encoder"]
    expected = outputs_of(reference, frames)  # without the stand-in, on a CPU
    with gpu.running():
        assert torch.equal(outputs_of(reference, frames), expected)
    assert torch.backends.cudnn.allow_tf32  # as the backend has it


@pytest.mark.parametrize("name", ["eager", "cudagraph", "ort-cuda"])
def test_backends_use_tf32_only_where_it_is_asked_for(
    gpu: Gpu, bundles: Bundles, name: str, tf32_everywhere: None
) -> None:
    load_backend(name, bundles())
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    load_backend(name, bundles(), Settings(tf32=True))
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32


def test_codes_of_a_clip_are_exact(
    gpu: Gpu, micro: WorldModel, frames: np.ndarray, tf32_everywhere: None
) -> None:
    expected = encode_frames(micro.vqvae, frames[:4])
    convolved = micro.vqvae.encoder.register_forward_pre_hook(
        lambda module, given: flags.append(torch.backends.cudnn.allow_tf32)
    )
    flags: list[bool] = []
    with gpu.running():
        assert torch.equal(encode_frames(micro.vqvae, frames[:4]), expected)
    convolved.remove()
    assert flags == [False] and torch.backends.cudnn.allow_tf32


def test_swap_of_a_gpu_backend_finds_no_fault_in_exact_graphs(
    gpu: Gpu, bundles: Bundles, clip: Clip
) -> None:
    """Before, its reference convolved in TF32, and every graph looked wrong.

    Two of 3072 values that round the other way are 80 dB, and some processors have more.
    """
    backend = load_backend("ort-cuda", bundles())
    with gpu.running():
        found = substitute_graphs(backend, bundles(), (clip.frames, None), 3, 4)
    assert min(found.worst_db.values()) > 70


def test_sessions_of_onnxruntime_are_set_up_on_purpose(
    gpu: Gpu, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    load_backend("ort-cuda", bundles(precision="fp16"))
    load_backend("ort-cuda", bundles())
    load_backend("ort-tensorrt", bundles(precision="fp16"))
    tf32 = [session.options.get("use_tf32") for session in gpu.sessions]
    assert tf32[:4] == ["1", "0", "0", "1"]  # float16 encoder and decoder need it for tensor cores
    assert tf32[4:8] == ["0"] * 4
    assert {session.threads for session in gpu.sessions} == {1}
    encoder, prefill = gpu.sessions[8].options, gpu.sessions[9].options
    assert encoder["trt_profile_min_shapes"] == "frames:1x32x32x3"
    assert encoder["trt_profile_max_shapes"] == "frames:4x32x32x3"
    assert prefill["trt_profile_max_shapes"] == "tokens:4x6x32,length:4"
    assert encoder["trt_engine_cache_path"] != prefill["trt_engine_cache_path"]
    assert encoder["trt_timing_cache_path"] == prefill["trt_timing_cache_path"]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("11.4.0", r"needs TensorRT 10, here is 11\.4\.0; install 'tensorrt-cu13>=10,<11'"),
        ("10.13.2", "10.13.2 is too old: 10.15 or newer is needed"),
        (None, "no TensorRT here. tensorrt: not installed"),
    ],
)
def test_tensorrt_that_does_not_fit_is_told(
    gpu: Gpu, bundles: Bundles, version: str | None, message: str, patch: pytest.MonkeyPatch
) -> None:
    import sys

    trt = sys.modules["tensorrt"]
    if version is None:
        patch.setitem(sys.modules, "tensorrt", None)
    else:
        patch.setattr(trt, "__version__", version)
        if version.startswith("10.13"):
            patch.setattr(trt, "INetworkDefinition", object)
    with pytest.raises(MissingError, match=message) as caught:
        load_backend("ort-tensorrt", bundles(precision="fp16"))
    assert "\n" not in str(caught.value)


def test_rtx_says_on_which_gpus_it_runs(
    gpu: Gpu, bundles: Bundles, patch: pytest.MonkeyPatch
) -> None:
    patch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    with pytest.raises(MissingError, match="this GPU is sm_90; use the backend tensorrt on it"):
        load_backend("tensorrt-rtx", bundles(precision="fp16"))
