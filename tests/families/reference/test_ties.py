"""What a tie is, and what an export makes of one."""

import copy
import dataclasses
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import MICRO, Bundles
from tests.families.reference.ties import PICTURES, counted, rounding, tied_bundle, tied_model
from wmdeploy.codes import FEW_TIES, CodeCount, add_counts
from wmdeploy.engines.same_codes import TieFinder
from wmdeploy.errors import ExportError
from wmdeploy.exporters.verify import OnnxEngine, verify_graph
from wmdeploy.families.cases import expected_outputs, record_model
from wmdeploy.families.reference.graphs import deployment
from wmdeploy.families.reference.ties import find_ties
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.manifest import Precision


@pytest.fixture
def pictures() -> np.ndarray:
    """(4, 32, 32, 3), no two alike."""
    return PICTURES


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("of_rounding", "tie"), [(0.0, 1), (0.5, 1), (2.0, 0), (100.0, 0)])
def test_tie_is_what_rounding_explains(
    micro: WorldModel, pictures: np.ndarray, precision: Precision, of_rounding: float, tie: int
) -> None:
    frame = pictures[1]
    excess = of_rounding * rounding(micro, frame, precision)
    count = counted(tied_model(micro, frame, excess), frame, precision)
    assert (count.tied, count.wrong, count.codes) == (tie, 1 - tie, 64)
    margin = count.tie_margin if tie else count.wrong_margin
    assert margin == pytest.approx(excess, rel=0.1, abs=1e-6)


def test_rounding_is_that_of_the_precision(micro: WorldModel, pictures: np.ndarray) -> None:
    single, half = (rounding(micro, pictures[1], p) for p in ("fp32", "fp16"))
    assert 1e-7 < single < 1e-4 and 30 * single < half < 0.1


def test_code_that_is_none_is_wrong(micro: WorldModel, pictures: np.ndarray) -> None:
    expected = micro.encode(torch.tensor(pictures)[None])[1][0].numpy()
    for code in (-1, MICRO.vqvae.codebook_size, 2**40):
        got = expected.copy()
        got[0, 0] = code
        found = find_ties(micro.vqvae.encoder, micro.vqvae.vq, pictures, expected, got, "fp32")
        assert (found.count.wrong, found.count.tied) == (1, 0) and not found.tied.any()


def test_equal_codes_are_not_encoded_again(pictures: np.ndarray) -> None:
    codes = np.zeros((4, 64), np.int64)
    found = find_ties(None, None, pictures, codes, codes, "fp32")  # type: ignore[arg-type]
    assert found.count == CodeCount(codes=256) and found.count.agreement == 1


def test_more_ties_than_rounding_explains_count_as_wrong() -> None:
    few = CodeCount(codes=10_000, tied=FEW_TIES + 20, unsteady=10)
    assert few.agreement == 1
    many = dataclasses.replace(few, tied=FEW_TIES + 31)
    assert many.agreement == pytest.approx(1 - 11 / 10_000)
    assert dataclasses.replace(few, wrong=7).agreement == pytest.approx(1 - 7 / 10_000)


def test_count_in_words() -> None:
    tied = CodeCount(codes=2560, tied=1, tie_margin=2.4e-6, rounding=1e-5)
    assert str(tied) == "1 of 2,560 codes tied (distances equal to 2.4e-06)"
    wrong = CodeCount(codes=1440, wrong=2, wrong_margin=0.03, rounding=1e-6)
    assert str(add_counts([tied, wrong])) == (
        "2 of 4,000 codes wrong (distances differ by up to 3.0e-02, rounding explains 1.0e-06), "
        "1 of 4,000 codes tied (distances equal to 2.4e-06)"
    )


@pytest.mark.parametrize("by", [1.001, 1.01, 1.1])
def test_scaled_latents_give_wrong_codes(micro: WorldModel, by: float) -> None:
    """An encoder that is off by a thousandth is found by the codes that it gets wrong."""
    other = copy.deepcopy(micro)
    other.vqvae.encoder.conv_out.weight.data *= by
    noise = np.random.default_rng(1).integers(0, 256, (200, 32, 32, 3), np.uint8)
    expected, got = (m.encode(torch.tensor(noise)[None])[1][0].numpy() for m in (micro, other))
    found = find_ties(micro.vqvae.encoder, micro.vqvae.vq, noise, expected, got, "fp32").count
    assert found.wrong > 0 and found.tied <= found.wrong
    assert found.wrong + found.tied == (expected != got).sum()


def test_export_takes_a_tie_and_refuses_a_wrong_code(
    micro: WorldModel, bundles: Bundles, pictures: np.ndarray, tmp_path: Path
) -> None:
    frame = pictures[1]
    for name, of_rounding in (("tie", 0.5), ("wrong", 5.0)):
        tied = tied_model(micro, frame, of_rounding * rounding(micro, frame))
        made = tied_bundle(tied, bundles(), tmp_path / name)
        cases = record_model(tied.model, "token", pictures, None)["encoder"]
        assert sum((case.feeds["frames"] == frame).all((1, 2, 3)).sum() for case in cases) > 0
        deployed = deployment(tied.model, "token", "fp32")
        engine = OnnxEngine(made.checked_graph("encoder"), deployed.graphs["encoder"]())
        judge = partial(
            expected_outputs,
            tied.model,
            "encoder",
            programs=deployed.programs,
            precision="fp32",
        )
        if name == "tie":
            parity = verify_graph(engine, cases, judge, "fp32")["codes"]
            assert parity.tied == 1 and parity.wrong == 0 and parity.agreement is not None
            assert parity.agreement < 1
        else:
            with pytest.raises(ExportError, match=r"has 1 of \d+ codes wrong"):
                verify_graph(engine, cases, judge, "fp32")


def test_what_is_kept_of_a_frame_is_small(
    micro: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100,000 frames of 64x64, as `evaluate` takes them, that is some 20 MB."""
    count = CodeCount(codes=64)
    monkeypatch.setattr(TieFinder, "_find", lambda *given: (dataclasses.replace(count), None))
    finder = TieFinder(micro, "fp32")
    random = np.random.default_rng(0)

    def show(frames: int) -> None:
        for _ in range(frames):
            frame = random.integers(0, 256, (1, 8, 8, 3), np.uint8)
            codes = random.integers(0, 512, (1, 64))
            finder.expect(frame, codes)
            assert finder(frame[0], codes[0]) is None

    show(100)
    tracemalloc.start()
    show(1000)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert finder.count.codes == 1100 * 64
    assert held < 250 * 1000
