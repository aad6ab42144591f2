"""Clips and data folders for tests, and damage to their files."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wmdeploy.clips import (
    ClipEntry,
    DataFolder,
    write_video,
)
from wmdeploy.clips.folder import write_index


def noise(count: int, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def smooth(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames with a slowly moving gradient, which lossy codecs keep well."""
    t, y, x = np.ogrid[:count, :height, :width]
    channels = [(x * 3 + t) % 256 + 0 * y, y * 4 + 0 * x + 0 * t, 2 * t + 0 * x + 0 * y]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def make_data_folder(folder: Path, lengths: tuple[int, ...] = (12, 9)) -> list[np.ndarray]:
    folder.mkdir()
    clips = [noise(length, 32, 32, seed=length) for length in lengths]
    entries = []
    for index, frames in enumerate(clips):
        video = folder / f"clip-{index:05}.mkv"
        write_video(video, frames, fps=15)
        np.save(video.with_suffix(".actions.npy"), np.arange(len(frames), dtype=np.int64) % 3)
        entries.append(ClipEntry(video.name, len(frames), episode=index, score=1.5))
    data = DataFolder(
        game="Pong",
        seed=0,
        size=32,
        fps=15.0,
        frame_skip=4,
        policy="random",
        num_actions=3,
        action_meanings=("NOOP", "UP", "DOWN"),
        clips=tuple(entries),
    )
    write_index(data, folder)
    return clips


def change_index(folder: Path, change: Callable[[dict], object]) -> None:
    document = json.loads((folder / "clips.json").read_text())
    change(document)
    (folder / "clips.json").write_text(json.dumps(document))


def change_bytes(path: Path, start: float, end: float) -> None:
    """Overwrite a part of a file, given in shares of its size, with zeros."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = bytes(last - first)
    path.write_bytes(data)


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


# Clip
