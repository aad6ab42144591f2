"""Imagine the frames that follow a clip, with any backend."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip, check_actions
from wmdeploy.engines.base import BASELINE, Settings, load_backend
from wmdeploy.errors import BackendError, ClipError
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.programs.engine import Backend
from wmdeploy.programs.session import Session


def open_source(
    source: str,
    backend: str | None = None,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    remarks: list[str] | None = None,
    family: str | None = None,
) -> Backend:
    """Engines of a bundle, or the baseline of a model.

    Args:
        source: a bundle, or whatever `load_model` takes.
        backend: for a bundle, default `ort-cpu`; a model itself runs on the baseline only.
        seed: of a preset's weights.
        remarks: gets those of `load_model`.
        family: of a model that does not name its own.

    Raises:
        BundleError, CheckpointError, BackendError: it cannot be loaded, or not by that backend.
        WmdeployError: it has no such decoder.
    """
    if (Path(source) / MANIFEST_FILE).is_file():
        return load_backend(backend or "ort-cpu", Bundle.open(Path(source)), settings)
    if backend not in (None, BASELINE):
        raise BackendError(
            f"backend {backend} runs bundles, and {source} is a model; "
            f"export it first: wmdeploy export {source} -o BUNDLE"
        )
    from wmdeploy.engines.devices import pytorch_device
    from wmdeploy.engines.pytorch.eager import baseline
    from wmdeploy.families import load_model
    from wmdeploy.families.precision import allow_tf32

    settings = settings or Settings()
    allow_tf32(settings.tf32)
    model = load_model(source, seed, remarks, family)
    return baseline(model, pytorch_device(BASELINE, settings), decoder=settings.decoder)


def rollout(
    backend: Backend,
    clip: Clip,
    context: int,
    horizon: int,
    refill: int | None = None,
    actions: np.ndarray | None = None,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Imagine `horizon` frames after the first `context` frames of a clip, one at a time.

    Args:
        clip: at least `context` frames of the model's size.
        actions: for a model with actions: (T,) int64 or (T, n) float32, from the clip's first frame
            on; default the clip's own. Where they end before the rollout does, the last one is
            held.
        seed: of what a model draws.

    Returns:
        Frames (H, W, 3) uint8, round(255·clip((x + 1)/2, 0, 1)), each imagined when asked for.

    Raises:
        ClipError: too few frames, or actions that do not fit the model.
    """
    if not 1 <= context <= len(clip.frames):
        raise ClipError(
            f"{clip.name}: got {len(clip.frames)} frames, "
            f"expected at least the context, {context} (and at least 1)"
        )
    if horizon < 1:
        raise ClipError(f"horizon: got {horizon}, expected at least 1")
    given = clip.actions if actions is None else actions
    programs = backend.programs
    taken = check_actions(given, programs.num_actions, clip.name, programs.action_size)
    if taken is not None:  # past the end the last one is held
        taken = taken[np.minimum(np.arange(context + horizon - 1), len(taken) - 1)]
    session = Session(backend, refill=refill, seed=seed)
    session.reset(clip.frames[:context], None if taken is None else taken[: context - 1])
    later = [None] * horizon if taken is None else list(taken[context - 1 :])
    return (session.step(action)[0] for action in later)
