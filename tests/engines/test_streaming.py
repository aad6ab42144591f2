"""Files of any number of frames are written in the memory of a few."""

import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Bundles
from wmdeploy import cli
from wmdeploy.clips import Clip, read_clip, write_npz, write_npz_frames, write_video
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.engines.base import load_backend
from wmdeploy.engines.rollout import rollout
from wmdeploy.errors import ClipError

SIDE = 128


def frames(count: int) -> Iterator[np.ndarray]:
    """Frames of many colours; each is another."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 16, SIDE // 16, 3), np.uint8)
    picture = noise.repeat(16, axis=0).repeat(16, axis=1)
    return (np.roll(picture, index, axis=0) for index in range(count))


def write(path: Path, count: int) -> None:
    if path.suffix == ".npz":
        write_npz_frames(path, frames(count), count)
    else:
        write_video(path, frames(count), fps=30)


def largest_memory() -> float:
    """Of this process, until now, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("suffix", [".gif", ".mkv", ".mp4", ".npz"])
def test_a_long_file_needs_the_memory_of_a_short_one(tmp_path: Path, suffix: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.engines.test_streaming", str(tmp_path / f"a{suffix}")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(process.stdout) < 25  # MB; the frames are 49
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]
    assert sum(1 for _ in read_clip(tmp_path / f"a{suffix}", size=16).frames) == 1000


def test_a_rollout_keeps_no_frames(bundles: Bundles, clip: Clip) -> None:
    backend = load_backend("ort-cpu", bundles())
    imagined = rollout(backend, clip, 4, 1000)
    next(imagined)
    tracemalloc.start()
    try:
        assert sum(1 for frame in imagined if frame.shape == (32, 32, 3)) == 999
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # bytes; the frames are 3 million


def test_a_clip_that_ends_with_its_context_has_no_future(bundles: Bundles, tmp_path: Path) -> None:
    write_npz(tmp_path / "clip.npz", np.stack(list(frames(4))))
    given = ["rollout", str(bundles().path), str(tmp_path / "clip.npz"), "--context", "4"]
    cli.app([*given, "--horizon", "2", "-o", str(tmp_path / "o.mkv")], standalone_mode=False)
    assert read_clip(tmp_path / "o.mkv").frames.shape == (2, 32, 32, 3)


def test_a_rollout_is_refused_before_its_first_frame(bundles: Bundles, clip: Clip) -> None:
    with pytest.raises(ClipError, match="expected at least the context, 99"):
        rollout(load_backend("ort-cpu", bundles()), clip, 99, 4)


def test_npz_frame_by_frame_is_what_numpy_writes(tmp_path: Path) -> None:
    whole = np.stack(list(frames(5)))
    write_npz(tmp_path / "whole.npz", whole, np.arange(5))
    write_npz_frames(tmp_path / "parts.npz", iter(whole), 5)
    np.savez_compressed(tmp_path / "numpy.npz", frames=whole, actions=np.arange(5))
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()
    with np.load(tmp_path / "parts.npz") as arrays:
        np.testing.assert_array_equal(arrays["frames"], whole)


@pytest.mark.parametrize("count", [0, 4, 6])
def test_npz_of_another_number_of_frames_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ClipError, match=f"got {count} frames, expected 5"):
        write_npz_frames(tmp_path / "a.npz", frames(count), 5)
    assert not list(tmp_path.iterdir())


def test_gif_shows_each_frame_though_it_equals_the_one_before(tmp_path: Path) -> None:
    repeated = [frame for frame in frames(5) for _ in range(3)]
    write_video(tmp_path / "a.gif", repeated, fps=15)
    np.testing.assert_array_equal(read_clip(tmp_path / "a.gif").frames, repeated)


def test_mp4_does_not_depend_on_the_number_of_cpus(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from wmdeploy.clips import read_clip, write_video\n"
        "if sys.argv[3] == 'one': os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "clip = read_clip(pathlib.Path(sys.argv[1]))\n"
        "write_video(pathlib.Path(sys.argv[2]), clip.frames, 30)"
    )
    written = []
    for cpus in ("one", "all"):
        target = tmp_path / f"{cpus}.mp4"
        given = [str(SAMPLE_CLIP), str(target), cpus]
        subprocess.run([sys.executable, "-c", code, *given], check=True)
        written.append(target.read_bytes())
    assert written[0] == written[1]


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write(target, 50)
    before = largest_memory()
    write(target, 1000)
    print(largest_memory() - before)
