"""The worker's answers, asked in this process."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Bundles
from wmdeploy.benchmarks.bench.options import BenchOptions, jobs, write_clips
from wmdeploy.benchmarks.protocol import Block, Warm
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.benchmarks.worker.__main__ import Worker
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.programs.session import Session


def test_a_block_is_of_its_stage_and_not_of_the_one_that_was_warmed_last(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bare engines and sessions take turns on one backend; the frames are those of a rollout."""
    options = BenchOptions(
        bundle=bundles().path, clips=(SAMPLE_CLIP,), backends=("ort-cpu",), context=4, horizon=8
    )
    clips = write_clips(options, bundles(), tmp_path, [])
    job = jobs(options, clips, bundles().manifest.programs, tmp_path)[1]
    worker = Worker(job)
    calls: list[str] = []
    for name, engine in worker.backend.engines.items():
        monkeypatch.setattr(
            engine,
            "run",
            lambda f, i=None, n=name, r=engine.run: (calls.append(n), r(f, i))[1],  # type: ignore[func-returns-value]
        )
    stages: tuple[StageName, ...] = ("encoder", "step", "frame", "imagine", "slide")
    for stage in stages:
        worker.answer(Warm(stage, 1))
    turns: tuple[tuple[StageName, list[str]], ...] = (
        ("encoder", ["encoder"]), ("frame", ["prefill", "decoder"]), ("step", ["step"]),
        ("slide", ["prefill"]), ("imagine", ["step", "step"]), ("frame", ["prefill", "decoder"]),
    )  # fmt: skip
    for stage, engines in turns:
        calls.clear()
        worker.answer(Block(stage, runs=2, untimed=1))
        assert calls == engines * 3, stage
    fresh = worker.rollouts[0]
    fresh.reset()
    alone = [fresh.step() for _ in range(8)]
    other = Rollout(Session(worker.backend), fresh.frames, None, 4)
    other.reset()
    for expected in alone:
        worker.answer(Block("step", runs=1, untimed=0))
        np.testing.assert_array_equal(other.step(), expected)
