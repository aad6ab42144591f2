"""Run exported graphs in ONNX Runtime: each beside PyTorch, and all in a rollout."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wmdeploy.codes import CodeCount
from wmdeploy.errors import ExportError, require
from wmdeploy.manifest import Exactness, Parity
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.check import Signature
from wmdeploy.programs.contract import TensorSpec
from wmdeploy.programs.engine import Backend, Engine
from wmdeploy.programs.host_engine import HostEngine
from wmdeploy.programs.record import DISTINCT, Case, encoding_once
from wmdeploy.programs.session import Session
from wmdeploy.psnr import psnr
from wmdeploy.runtime import refusal

# The largest allowed relative error of float outputs, the largest root mean square error of a frame
# over 255 (60 dB of PSNR in fp32, 45 dB in fp16, as the bench asks), and the share of codes that
# must agree or tie, as `CodeCount.agreement` counts. Integers change a product by 5e-3, of which a
# decoder that is not trained makes six times as much: 26 dB let it pass, where the bench asks for
# the 45 dB that a trained one has.
TOLERANCES: dict[Exactness, dict[str, float]] = {
    "fp32": {"float32": 1e-3, "uint8": 1e-3, "int64": 0.99},
    "fp16": {"float32": 3e-2, "uint8": 5.6e-3, "int64": 0.95},
    "int8": {"float32": 5e-2, "uint8": 5e-2, "int64": 0.95},
}
# The worst frame of a short rollout beside the baseline, in dB of PSNR, as the bench asks; in int8
# less, as above.
WORST_FRAME: dict[Exactness, float] = {"fp32": 60.0, "fp16": 38.0, "int8": 26.0}
ROLLOUT_FRAMES = 8
DRAWN_FRAMES = 2  # of a model that draws noise, before a real frame follows
LONGEST_CONTEXT = 60  # frames before them; a window up to 4 longer is cut on the way

# The largest share of codes that differ and do not tie.
WRONG_CODES: dict[Exactness, float] = {"fp32": 1e-3, "fp16": 5e-3, "int8": 5e-3}
ADVICE: dict[Exactness, str] = {
    "fp32": "frames of another clip",
    "fp16": "the precision fp32, and frames of another clip",
    "int8": "weights as floats, and frames of another clip",
}


# A case and an engine's answer -> what it should have been, and how codes compare.
Judge = Callable[[Case, Mapping[str, np.ndarray]], tuple[dict[str, np.ndarray], CodeCount | None]]


class OnnxEngine:
    """A graph of an export, in ONNX Runtime as it comes."""

    def __init__(self, path: Path, graph: Signature) -> None:
        self.name = path.stem
        self.inputs: tuple[TensorSpec, ...] = graph.inputs
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self._session = _open(path)

    def run(
        self, feeds: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """
        Raises:
            ExportError: ONNX Runtime cannot run it.
        """
        names = [spec.name for spec in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, feeds), strict=True))
        except Exception as error:
            raise ExportError(f"{self.name}: ONNX Runtime cannot run the graph: {error}") from error

    def synchronize(self) -> None:
        """It has finished when `run` returns."""

    def close(self) -> None:
        self._session = None


def verify_graph(
    engine: OnnxEngine,
    cases: Sequence[Case],
    judge: Judge,
    exactness: Exactness,
) -> dict[str, Parity]:
    """Parity of every output, the worst of all cases, of their batch and of batch 1.

    Args:
        judge: see `expected_outputs` of `wmdeploy.families`.

    Raises:
        ExportError: an output is not finite, or further from PyTorch than its tolerance.
    """
    parity: dict[str, Parity] = {}
    for case in cases:
        feeds = {s.name: case.feeds[s.name].astype(s.dtype) for s in engine.inputs}
        together = engine.run(feeds)
        alone = engine.run({s.name: _first_row(feeds[s.name], s) for s in engine.inputs})
        mixed = {
            s.name: _with_first_row(together[s.name], alone[s.name], s) for s in engine.outputs
        }
        for outputs in (together, mixed):
            expected, codes = judge(case, outputs)
            for name, value in expected.items():
                tolerance = TOLERANCES[exactness][str(value.dtype)]
                measured = compare(outputs[name], value, tolerance)
                if codes is not None and measured.agreement is not None:
                    measured = dataclasses.replace(measured, tied=codes.tied, wrong=codes.wrong)
                    problem = _codes_problem(codes, measured.tolerance, WRONG_CODES[exactness])
                else:
                    problem = _problem(measured, outputs[name])
                if problem:
                    raise ExportError(
                        f'{engine.name}: output "{name}" {problem}; no bundle was written. '
                        "Untrained or badly scaled weights cause this more often than the export "
                        f"does: try {ADVICE[exactness]}"
                    )
                if name not in parity or measured.relative > parity[name].relative:
                    parity[name] = measured
    return parity


def verify_rollout(
    engines: Mapping[str, Engine],
    *,
    modules: Backend,
    baseline: Backend,
    frames: np.ndarray,
    actions: np.ndarray | None,
    exactness: Exactness,
) -> None:
    """A short rollout of the exported graphs beside the model as its authors run it.

    Real frames are encoded by PyTorch on both sides: one code that ties would make another picture.
    A model that draws noise is shown a real frame in place of each second one that it imagines: its
    rollouts go another way with the first draw, or the first rounding to 8 bits, that differs.

    Args:
        engines: of the exported graphs, by name.
        modules: theirs, in float32, with the programs of the export.
        frames: (T, H, W, 3) uint8; repeated as far as need be.
        actions: (T, ...) for a model with actions.

    Raises:
        ExportError: a frame differs by more than its exactness explains.
    """
    programs = modules.programs
    encoders = {call.graph for call in programs.encode}
    mixed = {
        name: HostEngine(modules.engines[name], modules.arrays, engine)
        if name in encoders
        else engine
        for name, engine in engines.items()
    }
    exported = dataclasses.replace(modules, engines=mixed, arrays=NUMPY)
    longest = min(max(programs.least, programs.context - 4), LONGEST_CONTEXT)
    count = max(1, programs.least, longest)
    context = frames[np.arange(count) % min(len(frames), DISTINCT)]
    taken = None
    if actions is not None:
        taken = actions[np.arange(count + ROLLOUT_FRAMES) % len(actions)]
    ours, theirs = (Session(encoding_once(backend)) for backend in (exported, baseline))
    for side in (ours, theirs):
        side.reset(context, None if taken is None else taken[: count - 1])
    for at in range(ROLLOUT_FRAMES):
        action = None if taken is None else taken[count - 1 + at]
        for side in (ours, theirs):
            side.advance(action)
        if fault := _difference(ours, theirs, exactness):
            raise ExportError(
                f"frame {at + 1} of a rollout: {fault}, though each graph alone gives what its "
                "module gives; no bundle was written. Is the model rewritten exactly, and are its "
                f"weights trained? Try {ADVICE[exactness]}"
            )
        if programs.noise and (at + 1) % DRAWN_FRAMES == 0:
            for side in (ours, theirs):
                side.observe(frames[(count + at) % min(len(frames), DISTINCT)])


def _difference(exported: Session, baseline: Session, exactness: Exactness) -> str | None:
    """What differs of the newest frame by more than an exactness explains; None if nothing does."""
    if exported.programs.render:
        got, expected = (side.render().astype(np.float64) for side in (exported, baseline))
        decibels = psnr(float(np.square(got - expected).mean()))
        if decibels < WORST_FRAME[exactness]:
            least = WORST_FRAME[exactness]
            return f"it is {decibels:.1f} dB from the baseline's, expected {least:.0f} dB"
    ours, theirs = exported.outputs(), baseline.outputs()
    for name in ours.keys() & theirs.keys():
        mine, value = ours[name], theirs[name].astype(ours[name].dtype)
        kind = "int64" if mine.dtype == np.int64 else "float32"
        parity = compare(mine, value, TOLERANCES[exactness][kind])
        if name.endswith("logits") and parity.max_abs <= parity.tolerance:
            continue  # however small they are: no choice is likelier by more than that
        if fault := _problem(parity, mine):
            return f'the output "{name}" {fault}'
    return None


def _first_row(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    return np.ascontiguousarray(array.take([0], spec.batch_axis))


def _with_first_row(array: np.ndarray, row: np.ndarray, spec: TensorSpec) -> np.ndarray:
    others = np.delete(array, 0, spec.batch_axis)
    return np.concatenate([row, others], spec.batch_axis)


def compare(got: np.ndarray, expected: np.ndarray, tolerance: float) -> Parity:
    """Errors of one tensor.

    Raises:
        ExportError: the shapes differ.
    """
    if got.shape != expected.shape:
        raise ExportError(f"got shape {got.shape}, expected {expected.shape}")
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    largest = float(difference.max())
    scale = float(np.abs(expected.astype(np.float64)).max())
    relative = largest / scale if scale else largest
    if expected.dtype == np.uint8:
        squares = np.square(difference).reshape(len(difference), -1).mean(1)
        relative = float(np.sqrt(squares).max()) / 255
    return Parity(
        max_abs=largest,
        mean_abs=float(difference.mean()),
        relative=relative,
        agreement=float((got == expected).mean()) if expected.dtype == np.int64 else None,
        tolerance=tolerance,
    )


def _codes_problem(codes: CodeCount, least: float, most_wrong: float) -> str | None:
    if codes.agreement < least:
        return f"agrees in {codes.agreement:.2%} of codes, expected {least:.0%}: {codes}"
    return f"has {codes}" if codes.wrong > most_wrong * codes.codes else None


def _problem(parity: Parity, output: np.ndarray) -> str | None:
    if np.issubdtype(output.dtype, np.floating) and not np.isfinite(output).all():
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
    # products with integer weights in float32, as the graph says; a backend's rounding is its own
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception types are private to its C extension
        raise ExportError(refusal(path.stem, error, ort.__version__)) from error
