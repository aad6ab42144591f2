"""What this machine is, and how fast it can be."""

import datetime
import os

import pytest

from wmdeploy.benchmarks.bench import machine


def test_report_names_the_libraries_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's distribution has the version of CUDA in its name."""
    installed = {"tensorrt-cu13": "10.16.1", "triton": "3.6", "nvidia-cudnn-cu13": "9.28"}
    monkeypatch.setattr(machine, "_version", installed.get)
    assert machine.this_machine().packages == installed


def test_machine_is_the_one_that_this_runs_on() -> None:
    here = machine.this_machine()
    assert here.cpu and 1 <= here.cores <= (os.cpu_count() or 0) and here.memory_gb > 0.5
    assert {"torch", "onnx"} <= here.packages.keys()
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(here.date)
    assert datetime.timedelta(seconds=-1) < age < datetime.timedelta(minutes=1)


def test_ceilings_are_measured_once_for_each_device_in_another_process() -> None:
    details: list[str] = []

    def note(task: str, done: int, total: int, detail: str = "") -> None:
        details.append(detail)

    ceilings = machine.ceilings_of(["cpu", "cpu"], False, note)
    assert len(details) == 1 and "cpu" in details[0] and list(ceilings) == ["cpu"]
    cpu = ceilings["cpu"]
    assert 0.1 < cpu.bandwidth_gb_s < 5000 and 1 < cpu.gflop_s < 100_000
    assert cpu.threads >= 1 and cpu.half_gflop_s is None
