"""What the doctor finds out about a GPU's libraries, before anything is asked of them."""

import ctypes
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wmdeploy import doctor
from wmdeploy.errors import MissingError, require
from wmdeploy.exporters import export


def test_cudnn_that_does_not_fit_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def version() -> int:
        raise RuntimeError("cuDNN version incompatibility: compiled against 9.1, found 8.9\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A2")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    monkeypatch.setattr(torch.backends.cudnn, "version", version)
    finding = doctor._torch()
    assert finding.state == "problem" and "compiled against 9.1, found 8.9" in finding.description
    assert "\n" not in finding.description and "LD_LIBRARY_PATH" in finding.fix
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    assert doctor._torch().state == "ok"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An onnxruntime-gpu that was built for CUDA 13.0."""
    (tmp_path / "capi").mkdir()
    for name in ("shared", "cuda", "tensorrt"):
        (tmp_path / "capi" / f"libonnxruntime_providers_{name}.so").touch()
    info = SimpleNamespace(cuda_version="13.0")
    monkeypatch.setattr(doctor, "_cuda_of", lambda onnxruntime: info.cuda_version)
    return SimpleNamespace(__file__=str(tmp_path / "__init__.py"))


def test_provider_whose_libraries_are_not_there_is_a_problem(
    wheel: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: str, mode: int = 0) -> None:
        if path.endswith("_tensorrt.so"):
            raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    cuda, tensorrt = doctor._gpu_providers(wheel)  # type: ignore[arg-type]
    assert (cuda.state, cuda.enables) == ("ok", "backend ort-cuda")
    assert (tensorrt.state, tensorrt.enables) == ("problem", "backend ort-tensorrt")
    assert (
        tensorrt.description.startswith("libnvinfer.so.10") and "docs/tensorrt.md" in tensorrt.fix
    )


def test_provider_says_which_cuda_it_wants(
    wheel: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: str, mode: int = 0) -> None:
        raise OSError("libcublasLt.so.13: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert "CUDA 13.0" in doctor._gpu_providers(wheel)[0].fix  # type: ignore[arg-type]


def test_onnxruntime_of_a_cpu_has_no_gpu_providers(tmp_path: Path) -> None:
    plain = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    assert doctor._gpu_providers(plain) == []  # type: ignore[arg-type]


def test_checkout_that_is_not_installed_can_export(monkeypatch: pytest.MonkeyPatch) -> None:
    assert export._version("torch") == torch.__version__
    assert export._version("no-such-distribution") == "source"


def test_what_is_not_installed_is_missing() -> None:
    with pytest.raises(MissingError, match="a test needs no_such_module"):
        require("no_such_module", extra="gpu", purpose="a test")
