"""Rows and warnings, from what the workers gave."""

from pathlib import Path

import pytest

from tests.benchmarks.made_reports import row_of
from wmdeploy.benchmarks.bench.assemble import clock_warnings, frames_of, noise_warning
from wmdeploy.benchmarks.bench.interleave import Run
from wmdeploy.benchmarks.bench.workers import Result
from wmdeploy.benchmarks.protocol import Samples
from wmdeploy.benchmarks.stages import stages_of
from wmdeploy.gpu import GpuState
from wmdeploy.programs.contract import Call, Programs


@pytest.mark.parametrize(
    ("clocks", "reasons", "warnings"),
    [
        ([1980, 1950], [(), ()], []),
        ([1980, 1200], [(), ()], ["x: the GPU's clock moved from 1200 to 1980 MHz"]),
        ([1980, 1980], [(), ("SwPowerCap",)], ["x: the GPU's clock was held down: SwPowerCap"]),
    ],
)
def test_moving_clock_is_told(
    clocks: list[int], reasons: list[tuple[str, ...]], warnings: list[str]
) -> None:
    states = [GpuState(c, 2619, 40, None, r) for c, r in zip(clocks, reasons, strict=True)]
    runs = [
        Run(stage="frame", batch=1, samples=Samples([1.0], [0.9]), gpu=[state]) for state in states
    ]
    result = Result(label="x", directory=Path(), runs=runs)
    assert clock_warnings(result) == warnings
    assert [sample.state.sm_clock_mhz for sample in result.gpu_states] == clocks


def test_noise_is_told_in_one_line() -> None:
    rows = [
        row_of("x", "frame", speedup=2.0, speedup_low=1.92, speedup_high=2.08, noisy=True),
        row_of("x", "step", speedup=2.0, speedup_low=1.99, speedup_high=2.01),
        row_of("x", batch=8, speedup=2.0, speedup_low=1.94, speedup_high=2.06, noisy=True),
    ]
    assert noise_warning(rows) == (
        "x: the machine was too noisy: the speed-up is precise to ±4% only: frame, frame (batch 8)"
    )
    assert noise_warning(rows[1:2]) is None


def test_graph_makes_the_part_of_a_frame_that_its_runs_are_of() -> None:
    """Frames per second of a graph that is called 16 times for a frame are a 16th of its runs."""
    programs = Programs(
        context=20,
        keep=1,
        encode=(Call("encoder", {}, {}), Call("embed", {}, {})),
        absorb=(Call("absorb", {}, {}),),
        predict=(Call("begin", {}, {}), Call("token", {}, {}, times=15), Call("token", {}, {})),
        refresh=(Call("restart", {}, {}), Call("begin", {}, {})),
        render=(Call("embed", {}, {}), Call("decoder", {}, {})),
    )
    stages = stages_of((*programs.graphs(), "never"))
    assert {name: frames_of(stage, programs) for name, stage in stages.items()} == {
        "load": 0, "first_call": 0, "encoder": 1, "embed": 1, "absorb": 0, "begin": 1,
        "token": 1 / 16, "restart": 0, "decoder": 1, "never": 0, "download": 0, "frame": 1,
        "imagine": 1, "slide": 1,
    }  # fmt: skip
