"""Run an exported graph in ONNX Runtime and compare it with PyTorch, output by output."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wmdeploy.codes import CodeCount
from wmdeploy.errors import ExportError, require
from wmdeploy.families import Case, Graph
from wmdeploy.manifest import BATCH, Parity, Precision, TensorSpec
from wmdeploy.runtime import refusal

# The largest allowed relative error of float outputs, the largest root mean square error of a frame
# over 255 (60 dB of PSNR in fp32, 45 dB in fp16, as the bench asks), and the share of codes that
# must agree or tie, as `CodeCount.agreement` counts.
TOLERANCES: dict[Precision, dict[torch.dtype, float]] = {
    "fp32": {torch.float32: 1e-3, torch.uint8: 1e-3, torch.int64: 0.99},
    "fp16": {torch.float32: 3e-2, torch.uint8: 5.6e-3, torch.int64: 0.95},
}

WRONG_CODES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-3}  # the largest share; no ties


def verify_graph(path: Path, case: Case, graph: Graph, precision: Precision) -> dict[str, Parity]:
    """Parity of every output of the ONNX file at `path`, the worse of the case's batch and batch 1.

    Raises:
        ExportError: an output is not finite, or further from PyTorch than its tolerance.
    """
    session = _open(path)
    together = _run(session, path, case.feeds)
    feeds = {spec.name: _first_row(case.feeds[spec.name], spec) for spec in graph.inputs}
    alone = _run(session, path, feeds)
    mixed = {s.name: _with_first_row(together[s.name], alone[s.name], s) for s in graph.outputs}
    parity: dict[str, Parity] = {}
    for outputs in (together, mixed):
        codes = None if case.count_codes is None else case.count_codes(outputs)
        for name, expected in case.expected(outputs).items():
            measured = compare(outputs[name], expected, TOLERANCES[precision][expected.dtype])
            if codes is not None and measured.agreement is not None:
                measured = dataclasses.replace(measured, tied=codes.tied, wrong=codes.wrong)
                problem = _codes_problem(codes, measured.tolerance, WRONG_CODES[precision])
            else:
                problem = _problem(measured, outputs[name])
            if problem:
                raise ExportError(
                    f'{path.stem}: output "{name}" {problem}; no bundle was written. '
                    "Untrained or badly scaled weights cause this more often than the export "
                    "does: try the precision fp32, and frames of another clip"
                )
            if name not in parity or measured.relative > parity[name].relative:
                parity[name] = measured
    return parity


def _first_row(tensor: Tensor, spec: TensorSpec) -> Tensor:
    return tensor.narrow(spec.shape.index(BATCH), 0, 1).contiguous()


def _with_first_row(tensor: Tensor, row: Tensor, spec: TensorSpec) -> Tensor:
    axis = spec.shape.index(BATCH)
    return torch.cat([row, tensor.narrow(axis, 1, tensor.shape[axis] - 1)], dim=axis)


def compare(got: Tensor, expected: Tensor, tolerance: float) -> Parity:
    """Errors of one tensor.

    Raises:
        ExportError: the shapes differ.
    """
    if got.shape != expected.shape:
        raise ExportError(f"got shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    difference = (got.double() - expected.double()).abs()
    largest = float(difference.max())
    integers = expected.dtype == torch.int64
    scale = float(expected.double().abs().max())
    relative = largest / scale if scale else largest
    if expected.dtype == torch.uint8:
        relative = float(difference.square().flatten(1).mean(1).sqrt().max()) / 255
    return Parity(
        max_abs=largest,
        mean_abs=float(difference.mean()),
        relative=relative,
        agreement=float((got == expected).double().mean()) if integers else None,
        tolerance=tolerance,
    )


def _codes_problem(codes: CodeCount, least: float, most_wrong: float) -> str | None:
    if codes.agreement < least:
        return f"agrees in {codes.agreement:.2%} of codes, expected {least:.0%}: {codes}"
    return f"has {codes}" if codes.wrong > most_wrong * codes.codes else None


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


def _open(path: Path) -> Any:
    ort: Any = require("onnxruntime", extra="cpu", purpose="verifying an export")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and shown as ours
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types are private to its C extension
        raise ExportError(refusal(path.stem, error, ort.__version__)) from error


def _run(session: Any, path: Path, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        results = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
    except Exception as error:
        raise ExportError(f"{path.stem}: ONNX Runtime cannot run the graph: {error}") from error
    names = [output.name for output in session.get_outputs()]
    return {n: torch.from_numpy(r) for n, r in zip(names, results, strict=True)}
