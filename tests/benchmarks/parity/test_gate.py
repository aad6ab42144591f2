"""Pass or fail, from recordings that the test writes: one fault at a time."""

import base64
import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import MICRO, Bundles
from wmdeploy.benchmarks.parity.gate import ParityResult, check_parity
from wmdeploy.benchmarks.parity.worst_frame import GAP
from wmdeploy.benchmarks.protocol import CASES_FILE, SAME_CODES, rollout_file
from wmdeploy.bundle import Bundle
from wmdeploy.codes import CodeCount
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Noise
from wmdeploy.psnr import IDENTICAL_DB

S = MICRO.temporal.context
T = 4 * S  # frames imagined
SIDE = 16
VALUES = SIDE * SIDE * 3  # of a frame
CLIPS = ["a.mkv", "b.mkv", "c.mkv"]
EQUAL = CodeCount(codes=1000)


class Recordings:
    """What two workers left, equal to begin with; a test changes the backend's and asks."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.bundle, self.own, self.baseline = bundle, folder / "own", folder / "baseline"
        self.counts = [EQUAL] * len(CLIPS)
        self.rollouts = [_rollout(number) for number in range(len(CLIPS))]
        self.same_codes: list[dict[str, np.ndarray]] | None = None
        rng = np.random.default_rng(5)
        outputs = {name: graph.outputs[0].name for name, graph in bundle.manifest.graphs.items()}
        self.keys = {graph: f"{graph}/{name}" for graph, name in outputs.items()}
        self.cases = {key: rng.normal(0, 2, (3, 8)) for key in self.keys.values()}
        self.expected = [_rollout(number) for number in range(len(CLIPS))]
        self.expected_cases = {
            f"{g}/expected/{name}": self.cases[f"{g}/{name}"].copy() for g, name in outputs.items()
        }

    def check(self, precision: Precision = "fp32") -> ParityResult:
        _write(self.baseline, self.expected, self.expected_cases)
        _write(self.own, self.rollouts, self.cases)
        if self.same_codes is not None:
            _write(self.own / SAME_CODES, self.same_codes, self.cases)
        return check_parity(
            "x", precision, (self.own, self.baseline), self.bundle, CLIPS, counts=self.counts
        )


def _write(
    folder: Path, rollouts: list[dict[str, np.ndarray]], cases: dict[str, np.ndarray]
) -> None:
    folder.mkdir(exist_ok=True)
    np.savez(folder / CASES_FILE, allow_pickle=False, **cases)
    for number, arrays in enumerate(rollouts):
        np.savez(folder / rollout_file(number), allow_pickle=False, **arrays)


def _rollout(number: int) -> dict[str, np.ndarray]:
    """Of the clip of that number: another grey in each."""
    return {
        "free": np.full((T, SIDE, SIDE, 3), 50 + number, np.uint8),
        "forced": np.full((5, SIDE, SIDE, 3), 50 + number, np.uint8),
        "codes": np.zeros((9, 16), np.int64),
        "imagined_codes": np.zeros((T, 16), np.int64),
    }


def brighten(frame: np.ndarray, values: int, by: int = 1) -> None:
    """Raise so many of a frame's values: its mean squared error is values / VALUES * by**2."""
    frame.reshape(-1)[:values] += np.uint8(by)


@pytest.fixture
def recordings(tmp_path: Path, bundles: Bundles) -> Recordings:
    return Recordings(tmp_path, bundles())


def test_equal_recordings_pass(recordings: Recordings) -> None:
    result = recordings.check()
    assert result.reason is None and result.note is None
    assert list(result.stages) == [
        "encoder", "prefill", "step", "decoder", "frame", "imagine", "slide"
    ]  # fmt: skip
    frame = result.stages["frame"]
    horizons = {str(h) for h in (1, S, 8, 2 * S, T)}
    assert frame.worst_frame_psnr_db == frame.psnr_db == dict.fromkeys(horizons, IDENTICAL_DB)
    assert frame.max_abs == 0 and frame.code_agreement == 1
    assert frame.codes == CodeCount(codes=3000)
    assert result.stages["step"].max_abs == 0 and result.stages["step"].codes is None
    assert [(c.backend, c.clip, c.codes) for c in result.curves] == [
        ("x", clip, EQUAL) for clip in CLIPS
    ]


@pytest.mark.parametrize(
    ("precision", "values", "by", "horizon", "passes"),
    [
        ("fp32", 49, 1, 1, True),  # 60.08 dB
        ("fp32", 51, 1, 1, False),  # 59.91 dB
        ("fp32", 49, 1, 2 * S, True),
        ("fp32", 51, 1, 2 * S, False),
        ("fp32", VALUES, 40, 2 * S + 1, True),  # reported, not gated
        ("fp16", 51, 1, 1, True),
        ("fp16", 97, 4, 1, True),  # 45.06 dB
        ("fp16", 99, 4, 1, False),  # 44.97 dB
        ("fp16", 99, 4, 2, True),  # later frames may be further off
        ("fp16", 77, 10, 2, True),  # 38.12 dB
        ("fp16", 80, 10, 2, False),  # 37.95 dB
    ],
)
def test_gate_is_at_the_worst_frame_of_the_first_two_windows(
    recordings: Recordings, precision: Precision, values: int, by: int, horizon: int, passes: bool
) -> None:
    brighten(recordings.rollouts[0]["free"][horizon - 1], values, by)
    result = recordings.check(precision)
    assert (result.reason is None) == passes, result.reason
    worst = result.stages["frame"].worst_frame_psnr_db or {}
    expected = 10 * math.log10(255**2 / (values / VALUES * by**2))
    assert worst[str(T)] == pytest.approx(expected)


def test_reason_names_the_frame_and_the_clip(recordings: Recordings) -> None:
    brighten(recordings.rollouts[2]["free"][1], VALUES, 5)
    assert recordings.check().reason == (
        f"worst frame 34.2 dB at horizon {S}, expected 60 dB, on c.mkv"
    )


def test_worst_clip_is_named_and_shown_wherever_it_stands(recordings: Recordings) -> None:
    brighten(recordings.rollouts[0]["free"][3], VALUES, 5)
    brighten(recordings.rollouts[1]["free"][4], VALUES, 9)
    brighten(recordings.rollouts[2]["free"][5], VALUES, 7)
    result = recordings.check()
    assert result.reason and result.reason.endswith(", on b.mkv")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(result.worst_frame))))
    assert (picture[:, :SIDE, :3] == 51).all()
    assert (picture[:, SIDE + GAP : 2 * SIDE + GAP, :3] == 60).all()
    assert [min(c.free_db) for c in result.curves] == pytest.approx(
        [10 * math.log10(255**2 / by**2) for by in (5, 9, 7)]
    )
    parity = result.stages["frame"]
    assert parity.max_abs == 9
    assert parity.mean_abs == pytest.approx((5 + 9 + 7) / (3 * T))


def test_wrong_code_fails_though_all_frames_are_equal(recordings: Recordings) -> None:
    recordings.counts[1] = CodeCount(codes=1000, wrong=2, wrong_margin=0.5, rounding=1e-6)
    recordings.rollouts[1]["codes"][0, :2] = 7
    result = recordings.check()
    assert result.reason == (
        "codes agree 99.80%, expected 99.9%, on b.mkv; 2 of 3,000 codes wrong (distances differ "
        "by up to 5.0e-01, rounding explains 1.0e-06)"
    )
    assert result.stages["encoder"].code_agreement == pytest.approx(1 - 2 / (3 * 144))
    assert recordings.check("fp16").reason is None  # which may have 5 of 1000


def test_tie_passes_by_the_frames_from_the_baselines_codes(recordings: Recordings) -> None:
    recordings.counts[0] = CodeCount(codes=1000, tied=1, tie_margin=1e-6, rounding=1e-5)
    recordings.rollouts[0]["codes"][0, 0] = 7
    brighten(recordings.rollouts[0]["free"][0], VALUES, 80)
    recordings.same_codes = [_rollout(number) for number in range(len(CLIPS))]
    brighten(recordings.same_codes[1]["free"][0], 10)
    result = recordings.check()
    assert result.reason is None
    assert result.note == (
        "1 of 3,000 codes tied (distances equal to 1.0e-06); worst frame from its own 10.1 dB"
    )
    first, second, _ = result.curves
    assert min(first.free_db) == IDENTICAL_DB > min(second.free_db) > 60
    assert min(first.own_db) == pytest.approx(10 * math.log10(255**2 / 80**2))
    assert first.code_agreement == 1 - 1 / 144 and second.code_agreement == 1
    assert result.stages["frame"].max_abs == 1  # not of its own codes


def test_frames_from_the_same_codes_are_gated(recordings: Recordings) -> None:
    recordings.counts[0] = CodeCount(codes=1000, tied=1, tie_margin=1e-6, rounding=1e-5)
    recordings.same_codes = [_rollout(number) for number in range(len(CLIPS))]
    brighten(recordings.same_codes[2]["free"][0], VALUES, 5)
    reason = recordings.check().reason
    assert reason and reason.startswith("worst frame 34.2 dB at horizon 1, expected 60 dB, on c")
    assert "; 1 of 3,000 codes tied" in reason


@pytest.mark.parametrize("graph", ["prefill", "step"])
@pytest.mark.parametrize(("precision", "limit"), [("fp32", "1e-03"), ("fp16", "3e-02")])
def test_wrong_graph_fails_though_no_frame_shows_it(
    recordings: Recordings, graph: str, precision: Precision, limit: str
) -> None:
    cases, key = recordings.cases, recordings.keys[graph]
    scale, right = np.abs(cases[key]).max(), cases[key].copy()
    cases[key][1, 3] = right[1, 3] + 0.9 * float(limit) * scale
    assert recordings.check(precision).reason is None
    cases[key][1, 3] = right[1, 3] + 1.2 * float(limit) * scale
    assert recordings.check(precision).reason == (
        f"{graph}: relative error {1.2 * float(limit):.1e}, expected {limit}"
    )


@pytest.mark.parametrize("graph", ["prefill", "step"])
def test_output_that_is_no_number_fails(recordings: Recordings, graph: str) -> None:
    recordings.cases[recordings.keys[graph]][0, 0] = math.nan
    assert recordings.check("fp16").reason == f"{graph}: relative error nan, expected 3e-02"


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_encoder_and_decoder_are_gated_by_what_they_make(
    recordings: Recordings, graph: str
) -> None:
    recordings.cases[recordings.keys[graph]] += 1
    result = recordings.check()
    assert result.reason is None and result.stages[graph].max_abs == pytest.approx(1)


def test_backend_with_graphs_of_its_own_has_parity_of_its_rollouts(recordings: Recordings) -> None:
    recordings.cases = {}
    result = recordings.check()
    assert result.reason is None
    assert list(result.stages) == ["encoder", "frame", "imagine", "slide"]
    assert result.stages["encoder"].max_abs is None and result.stages["encoder"].code_agreement == 1


def test_codes_are_named_before_frames_and_frames_before_graphs(recordings: Recordings) -> None:
    recordings.cases[recordings.keys["step"]] += 1
    brighten(recordings.rollouts[0]["free"][0], VALUES, 5)
    assert (recordings.check().reason or "").startswith("worst frame")
    recordings.counts[0] = CodeCount(codes=1000, wrong=2)
    assert (recordings.check().reason or "").startswith("codes agree")


@pytest.fixture
def drawn(recordings: Recordings) -> Recordings:
    """Of a model that draws noise in its step, and has no codes."""
    manifest = recordings.bundle.manifest
    programs = manifest.programs
    (encode,), (step,) = programs.encode, programs.predict
    encode = dataclasses.replace(encode, gives={"new.token": "token"})
    step = dataclasses.replace(step, feeds={**step.feeds, "choice": "noise.choice"})
    programs = dataclasses.replace(
        programs, encode=(encode,), predict=(step,), noise={"choice": Noise("gumbel", (4,))}
    )
    manifest = dataclasses.replace(manifest, programs=programs)
    recordings.bundle = dataclasses.replace(recordings.bundle, manifest=manifest)
    recordings.counts = []
    for side in (recordings.rollouts, recordings.expected):
        for arrays in side:
            del arrays["codes"], arrays["imagined_codes"]
            arrays["free/drawn"] = np.zeros((T, 2), np.int64)
            arrays["forced/drawn"] = np.zeros((5, 2), np.int64)
            arrays["forced/logits"] = np.zeros((5, 2), np.float32)
    return recordings


def test_model_that_draws_is_judged_by_what_follows_true_frames(drawn: Recordings) -> None:
    brighten(drawn.rollouts[0]["free"][0], VALUES, 50)  # once another value was drawn
    drawn.rollouts[1]["free/drawn"][4] = 1
    brighten(drawn.rollouts[2]["forced"][3], 49)
    result = drawn.check()
    assert result.reason is None
    assert result.note == (
        "draws noise: judged by forced frames (worst 60.1 dB) and logits (mean total variation "
        "0.0e+00); free frames draw another value at horizon 5"
    )
    frame = result.stages["frame"]
    assert frame.forced_worst_db == pytest.approx(60.08, abs=0.01)
    assert frame.outputs["drawn"].agreement == 1 and frame.outputs["logits"].variation == 0
    assert frame.code_agreement is frame.codes is None
    assert [c.first_draw for c in result.curves] == [None, 5, None]
    assert [(c.code_agreement, c.codes) for c in result.curves] == [(None, None)] * 3
    brighten(drawn.rollouts[2]["forced"][3], 51)
    reason = drawn.check().reason or ""
    assert reason.startswith("worst forced frame of 5: ")
    assert " dB, expected 60 dB, on c.mkv; draws noise" in reason


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_logits_that_miss_the_gate_fail(drawn: Recordings, precision: Precision) -> None:
    for share, passes in ((0.9e-3, True), (1.1e-3, False), (math.nan, False)):
        logits = np.log(np.array([0.5 + share, 0.5 - share]))
        for arrays in drawn.rollouts:
            arrays["forced/logits"][:] = logits
        reason = drawn.check(precision).reason
        assert (reason is None) == passes
        assert passes or (reason or "").startswith(
            f"logits: mean total variation {share:.1e}, expected 1e-03"
        )


def test_model_that_draws_needs_true_frames_after_the_context(drawn: Recordings) -> None:
    for side in (drawn.rollouts, drawn.expected):
        side[0]["forced"] = side[0]["forced"][:0]
    reason = drawn.check().reason or ""
    assert reason.startswith("no true frames after the context to judge by; give a longer clip, on")


def test_graph_that_draws_is_judged_by_what_comes_of_it(drawn: Recordings) -> None:
    drawn.cases[drawn.keys["step"]] += 1
    assert drawn.check().reason is None
    drawn.cases[drawn.keys["encoder"]] += 1  # which without codes has no gate of its own
    assert (drawn.check().reason or "").startswith("encoder: relative error")
