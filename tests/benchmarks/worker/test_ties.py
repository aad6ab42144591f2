"""A tie is no fault, and a fault is no tie: workers' recordings against the gate."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.conftest import MICRO, Bundles
from tests.families.reference.ties import Tied, replace_codebook, rounding, tied_bundle, tied_model
from tests.planted import planted
from wmdeploy.benchmarks.parity.gate import ParityResult, check_parity
from wmdeploy.benchmarks.protocol import (
    CASES_FILE,
    SAME_CODES,
    TIES_FILE,
    rollout_file,
)
from wmdeploy.benchmarks.worker.graph_outputs import backend_answers, baseline_cases
from wmdeploy.benchmarks.worker.rollouts import Rollout, record
from wmdeploy.benchmarks.worker.ties import read_corrections, write_ties
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import Backend, load_backend
from wmdeploy.engines.same_codes import with_same_codes
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.manifest import Precision
from wmdeploy.programs.arrays import Array
from wmdeploy.programs.engine import Engine
from wmdeploy.programs.record import encoding_once
from wmdeploy.programs.session import Session

CONTEXT = 2
HORIZON = 2 * MICRO.temporal.context


def judged(bundle: Bundle, frames: np.ndarray, folder: Path) -> ParityResult:
    """`ort-cpu` beside the baseline on one clip."""
    base, mine = folder / "baseline", folder / "backend"
    base.mkdir()
    (mine / SAME_CODES).mkdir(parents=True)
    eager, backend = load_backend("eager", bundle), load_backend("ort-cpu", bundle)
    np.savez(
        base / CASES_FILE, allow_pickle=False, **baseline_cases(bundle, frames[:CONTEXT], None)
    )
    np.savez(base / rollout_file(0), allow_pickle=False, **recorded(eager, frames))

    def leave(backend: Backend, where: Path) -> None:
        np.savez(
            where / CASES_FILE,
            allow_pickle=False,
            **backend_answers(backend, bundle, base / CASES_FILE),
        )
        np.savez(where / rollout_file(0), allow_pickle=False, **recorded(backend, frames))

    leave(backend, mine)
    counts = write_ties(bundle, [frames], base, mine, backend.precision)
    if (mine / TIES_FILE).exists():
        leave(
            with_same_codes(backend, read_corrections(mine / TIES_FILE, [frames])),
            mine / SAME_CODES,
        )
    else:
        (mine / SAME_CODES).rmdir()
    return check_parity(
        "ort-cpu", backend.precision, (mine, base), bundle, ["a.mkv"], counts=counts
    )


def recorded(backend: Backend, frames: np.ndarray) -> dict[str, np.ndarray]:
    return record(Rollout(Session(backend), frames, None, CONTEXT), HORIZON)


def scale(weight: str, by: float) -> Callable[[onnx.ModelProto], None]:
    def fault(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith(weight))
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array * array.dtype.type(by), tensor.name))

    return fault


@pytest.mark.parametrize(
    ("layout", "precision"), [("token", "fp32"), ("latent", "fp32"), ("token", "fp16")]
)
def test_tie_passes_and_is_told(
    micro: WorldModel,
    bundles: Bundles,
    pictures: np.ndarray,
    tmp_path: Path,
    layout: str,
    precision: Precision,
) -> None:
    frame = pictures[1]
    tied = tied_model(micro, frame, 0.5 * rounding(micro, frame, precision))
    made = tied_bundle(tied, bundles(layout, precision), tmp_path / "bundle")
    found = judged(made, pictures, tmp_path)
    assert found.reason is None
    assert found.note and " of 256 codes tied (distances equal to " in found.note
    (curve,) = found.curves
    lowest = 60 if precision == "fp32" else 38
    assert min(curve.free_db) > lowest > min(curve.own_db)  # what was gated before
    assert curve.codes and curve.codes.wrong == 0
    assert 1 <= curve.codes.tied <= (1 if precision == "fp32" else 4)  # float16 has others, too
    assert curve.code_agreement == 1 - curve.codes.tied / 256
    assert found.stages["frame"].codes == curve.codes
    assert (found.stages["encoder"].cosine or 0) > 0.999  # of the token that goes with the codes


def test_code_past_the_rounding_fails(
    micro: WorldModel, bundles: Bundles, pictures: np.ndarray, tmp_path: Path
) -> None:
    frame = pictures[1]
    tied = tied_model(micro, frame, 5 * rounding(micro, frame))
    found = judged(tied_bundle(tied, bundles(), tmp_path / "bundle"), pictures, tmp_path)
    assert found.reason and found.reason.startswith(
        "codes agree 99.61%, expected 99.9%, on a.mkv; 1 of 256 codes wrong (distances differ by"
    )


@pytest.mark.parametrize(
    ("graph", "weight", "by"),
    [
        ("encoder", "encoder.conv_out.weight", 1.1),
        ("encoder", "project.weight", 1.01),
        ("decoder", "conv_out.weight", 1.01),
        ("decoder", "conv_out.weight", 1.002),
    ],
)
def test_fault_beside_a_tie_fails(
    tie_bundle: Bundle, pictures: np.ndarray, tmp_path: Path, graph: str, weight: str, by: float
) -> None:
    broken = planted(tie_bundle, graph, tmp_path / "broken", scale(weight, by))
    assert judged(broken, pictures, tmp_path).reason


def test_swapped_rows_of_the_codebook_fail(
    tie_bundle: Bundle, tied: Tied, pictures: np.ndarray, tmp_path: Path
) -> None:
    rows = tied.model.vqvae.vq.embedding.weight.detach().numpy()
    substituted = rows.copy()
    used = tied.model.encode(torch.tensor(pictures)[None])[1].unique().tolist()
    substituted[used[:2]] = rows[used[1::-1]]

    def swap(model: onnx.ModelProto) -> None:
        replace_codebook(model, rows, substituted)

    found = judged(planted(tie_bundle, "encoder", tmp_path / "b", swap), pictures, tmp_path)
    assert found.reason and "codes wrong" in found.reason


class Unsteady:
    """An encoder whose kernels add in another order each time: one code is never the same."""

    def __init__(self, inner: Engine) -> None:
        self.name, self.inputs, self.outputs = inner.name, inner.inputs, inner.outputs
        self._inner, self.runs = inner, 0

    def run(
        self, feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        outputs = dict(self._inner.run(feeds, into))
        codes = np.array(outputs["codes"])
        codes[:, -1] = self.runs
        self.runs += 1
        return {**outputs, "codes": codes}

    def synchronize(self) -> None: ...

    def close(self) -> None: ...


def test_frame_has_the_codes_of_its_first_encoding(bundles: Bundles, frames: np.ndarray) -> None:
    """Else what one recording finds to tie is not what the next one ties."""
    backend = load_backend("ort-cpu", bundles())
    unsteady = Unsteady(backend.engines["encoder"])
    loose = dataclasses.replace(backend, engines={**backend.engines, "encoder": unsteady})
    steady = encoding_once(loose)
    first, again = recorded(loose, frames), recorded(loose, frames)
    assert not np.array_equal(first["codes"], again["codes"])
    first, again = recorded(steady, frames), recorded(steady, frames)
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values)
    seen = unsteady.runs
    steady.engines["encoder"].run({"frames": frames[:3]})
    assert unsteady.runs == seen
