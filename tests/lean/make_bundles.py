"""Bundles for the tests that run without torch, with what PyTorch imagines: FOLDER is replaced.

python -m tests.lean.make_bundles FOLDER
"""

import shutil
import sys
from pathlib import Path

import numpy as np

from wmdeploy.clips.read import SAMPLE_CLIP, read_clip
from wmdeploy.clips.write import write_npz
from wmdeploy.engines.base import load_backend
from wmdeploy.programs.session import Session

FRAMES, CONTEXT = 12, 4
SOURCES = {
    "tiny": ("tiny", None),
    "sampled": ("sampled-4", "tests.families.sampled:SampledFamily"),
    "recurrent": ("recurrent-12", "tests.families.recurrent_like:RecurrentFamily"),
}


def main(folder: Path) -> None:
    from wmdeploy.exporters.export import ExportOptions, export_bundle
    from wmdeploy.families import use_family

    shutil.rmtree(folder, ignore_errors=True)
    for name, (preset, plugin) in SOURCES.items():
        family = use_family(plugin) if plugin else None
        clip = float_clip(folder / "floats.npz") if name == "recurrent" else SAMPLE_CLIP
        options = ExportOptions(source=preset, family=family, output=folder / name, clip=clip)
        bundle, _ = export_bundle(options)
        session = Session(load_backend("eager", bundle), seed=5)
        real = read_clip(SAMPLE_CLIP, size=session.backend.image_size, count=CONTEXT)
        session.reset(real.frames, actions(session, CONTEXT - 1))
        frames = [session.step(actions(session, 1)) for _ in range(FRAMES)]
        np.savez(folder / f"{name}.npz", frames=np.concatenate(frames))


def float_clip(path: Path) -> Path:
    """Write a clip for the recurrent family: the sample's frames, and made-up actions (T, 2)."""
    frames = read_clip(SAMPLE_CLIP, size=16).frames
    made_up = np.random.default_rng(0).normal(size=(len(frames), 2)).astype(np.float32)
    write_npz(path, frames, made_up)
    return path


def actions(session: Session, count: int) -> np.ndarray | None:
    """The same ones at each frame, (count, ...); None for a model without."""
    action = session.programs.action
    if action is None:
        return None
    value = 1 if action.dtype == "int64" else 0.5
    return np.full((count, *action.sizes(1)[1:]), value, action.dtype)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
