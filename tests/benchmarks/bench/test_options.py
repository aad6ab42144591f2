"""Options, and the workers and clips that follow from them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clips.made_media import encode, greys, numbers
from tests.conftest import Bundles
from wmdeploy.benchmarks.bench.options import (
    BenchOptions,
    check,
    check_backends,
    clip_names,
    jobs,
    write_clips,
)
from wmdeploy.benchmarks.environment import Effort
from wmdeploy.clips import ReadOptions
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import Settings
from wmdeploy.errors import BackendError
from wmdeploy.programs.contract import Programs

OPTIONS = BenchOptions(bundle=Path(), clips=(SAMPLE_CLIP,), context=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 7}, "context 7 .* expected a context of 1 to 6"),
        ({"batches": (1, 0)}, "batch: got 1, 0, expected numbers of 1 to"),
        ({"horizon": 0}, "horizon 0, expected .* a horizon of 1 to"),
        ({"refill": 6}, "refill 6, expected .* a refill of 1 to 5"),
        ({"effort": Effort(seconds=float("nan"))}, "got nan seconds"),
        ({"effort": Effort(precision=0)}, "precision: got 0%, expected more than 0%"),
        ({"threads": (1, 0)}, "threads: got 1, 0, expected numbers of 1 to 2$"),
        ({"threads": (3,)}, "threads: got 3, expected numbers of 1 to 2$"),
        ({"fps": 0.0}, "got 0 frames per second"),
        ({"fps": 30.0, "rate_seconds": 0.01}, "30 frames per second for 0.01 seconds"),
        ({"clips": ()}, "got no clip"),
    ],
)
def test_options_out_of_range_are_refused(
    changes: dict[str, Any], message: str, bundles: Bundles
) -> None:
    options, programs = OPTIONS, bundles().manifest.programs
    check(options, programs, cpus=2)
    with pytest.raises(BackendError, match=message):
        check(dataclasses.replace(options, **changes), programs, cpus=2)


def test_context_is_what_the_model_can_take(bundles: Bundles) -> None:
    programs = bundles().manifest.programs
    needs = dataclasses.replace(programs, least=5)
    with pytest.raises(BackendError, match="context 4 .* expected a context of 5 to 6"):
        check(OPTIONS, needs, cpus=2)
    recurrent = dataclasses.replace(programs, context=1, keep=1, absorb=programs.predict)
    check(dataclasses.replace(OPTIONS, context=100), recurrent, cpus=2)
    with pytest.raises(BackendError, match="context 4097 .* expected a context of 1 to 4096"):
        check(dataclasses.replace(OPTIONS, context=4097), recurrent, cpus=2)
    with pytest.raises(BackendError, match="refill 1, expected .* and no refill"):
        check(dataclasses.replace(OPTIONS, refill=1), recurrent, cpus=2)


def test_model_without_frames_is_refused(bundles: Bundles) -> None:
    blind = dataclasses.replace(bundles().manifest.programs, render=())
    with pytest.raises(BackendError, match="the model renders no frames"):
        check(OPTIONS, blind, cpus=2)


def test_unknown_backend_is_refused() -> None:
    check_backends(("eager", "ort-cpu"))
    with pytest.raises(BackendError, match="got 'cuda', expected one of eager"):
        check_backends(("eager", "cuda"))


def planned(tmp_path: Path, **changes: Any) -> list[tuple[str, int | None, bool]]:
    names = ("eager", "ort-cpu", "tensorrt")
    options = BenchOptions(bundle=tmp_path, clips=(SAMPLE_CLIP,), backends=names, **changes)
    programs = Programs(context=6, keep=6, encode=(), predict=())
    made = jobs(options, (), programs, tmp_path)
    assert {job.context for job in made} == {6}  # as many as the model takes
    return [(job.label, job.settings.threads, job.is_baseline) for job in made]


def test_threads_are_swept_by_backends_on_the_cpu(tmp_path: Path) -> None:
    cpu = Settings("cpu")
    assert planned(tmp_path, settings=cpu, threads=(1, 2)) == [
        ("eager (1 thread)", 1, True),
        ("eager (2 threads)", 2, False),
        ("ort-cpu (1 thread)", 1, False),
        ("ort-cpu (2 threads)", 2, False),
        ("tensorrt", None, False),
    ]
    one = planned(tmp_path, settings=cpu, threads=(2,))
    assert one == [("eager", 2, True), ("ort-cpu", 2, False), ("tensorrt", None, False)]
    assert [threads for _, threads, _ in planned(tmp_path, settings=cpu)] == [None] * 3


def test_clips_of_the_same_name_are_told_apart() -> None:
    assert clip_names((Path("a/x.mkv"), Path("y.mkv"))) == ["x.mkv", "y.mkv"]
    assert clip_names((Path("a/x.mkv"), Path("b/x.mkv"))) == ["a/x.mkv", "b/x.mkv"]


TIMES = [0, 300, 600, 1500, *range(1800, 8400, 300)]


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A wide video with a frame dropped."""
    (tmp_path / "films").mkdir()
    return encode(tmp_path / "films" / "film.mp4", greys(26, 36, 64) // 2, times=TIMES)


def test_bench_keeps_what_its_clips_tell(film: Path, bundles: Bundles, tmp_path: Path) -> None:
    told: list[str] = []
    options = BenchOptions(bundle=bundles().path, clips=(film,), context=4, horizon=4)
    write_clips(options, bundles(), tmp_path, told)
    assert [line.split(" are")[0] for line in told] == [
        "film: variable frame rate: frames",
        "film: frames of 64x36",
    ]
    read = ReadOptions(fps=30, fit="crop")
    (path,) = write_clips(dataclasses.replace(options, read=read), bundles(), tmp_path, told)
    assert len(told) == 2
    with np.load(path) as arrays:
        assert numbers(arrays["frames"] * 2) == [0, 1, 2, 2, 2, 3, 4, 5]
