"""Rows and warnings, from what the workers gave."""

from pathlib import Path

import pytest

from tests.benchmarks.made_reports import row_of
from wmdeploy.benchmarks.bench.assemble import clock_warnings, noise_warning
from wmdeploy.benchmarks.bench.interleave import Run
from wmdeploy.benchmarks.bench.workers import Result
from wmdeploy.benchmarks.protocol import Samples
from wmdeploy.gpu import GpuState


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
