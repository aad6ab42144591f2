"""Run an exported graph in ONNX Runtime and compare it with PyTorch, output by output."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wmdeploy.bundle import Parity, Precision
from wmdeploy.errors import ExportError, require
from wmdeploy.models.cases import Case

# The largest allowed relative error of float outputs, of uint8 pixels (in levels of 255), and the
# share of codes that must agree. Codes may differ where two distances tie within rounding.
TOLERANCES: dict[Precision, dict[torch.dtype, float]] = {
    "fp32": {torch.float32: 1e-3, torch.uint8: 2 / 255, torch.int64: 0.99},
    "fp16": {torch.float32: 3e-2, torch.uint8: 32 / 255, torch.int64: 0.95},
}


def verify_graph(path: Path, case: Case, precision: Precision) -> dict[str, Parity]:
    """Parity of every output of the ONNX file at `path`.

    Raises:
        ExportError: an output is not finite, or further from PyTorch than its tolerance.
    """
    outputs = _run_onnx(path, case.feeds)
    parity = {}
    for name, expected in case.expected(outputs).items():
        measured = compare(outputs[name], expected, TOLERANCES[precision][expected.dtype])
        problem = _problem(measured, outputs[name])
        if problem:
            raise ExportError(
                f'{path.stem}: output "{name}" {problem}; no bundle was written. '
                "Untrained or badly scaled weights cause this more often than the export does: "
                "try --precision fp32, and other frames with --clip"
            )
        parity[name] = measured
    return parity


def compare(got: Tensor, expected: Tensor, tolerance: float) -> Parity:
    """Errors of one tensor; both have the same shape."""
    difference = (got.double() - expected.double()).abs()
    largest = float(difference.max())
    integers = expected.dtype == torch.int64
    scale = 255.0 if expected.dtype == torch.uint8 else float(expected.double().abs().max())
    return Parity(
        max_abs=largest,
        mean_abs=float(difference.mean()),
        relative=largest / scale if scale else largest,
        agreement=float((got == expected).double().mean()) if integers else None,
        tolerance=tolerance,
    )


def _problem(parity: Parity, output: Tensor) -> str | None:
    if output.is_floating_point() and not torch.isfinite(output).all():
        return "holds NaN or infinity"
    if parity.agreement is not None:
        if parity.agreement < parity.tolerance:
            return f"agrees in {parity.agreement:.2%} of codes, expected {parity.tolerance:.0%}"
    elif not parity.relative <= parity.tolerance:
        return (
            f"differs from PyTorch by {parity.max_abs:.3g} (relative {parity.relative:.2e}), "
            f"expected at most {parity.tolerance:.1e} relative"
        )
    return None


def _run_onnx(path: Path, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    ort: Any = require("onnxruntime", extra="cpu", purpose="verifying an export")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        results = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
    except Exception as error:  # its exception types are private to its C extension
        raise ExportError(f"{path.stem}: ONNX Runtime cannot run the graph: {error}") from error
    names = [output.name for output in session.get_outputs()]
    return {n: torch.from_numpy(r) for n, r in zip(names, results, strict=True)}
