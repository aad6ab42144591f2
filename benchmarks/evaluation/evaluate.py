"""Evaluate a model, or a bundle by one of its backends, on clips it was not trained on.

A bundle is judged twice: by its own source model in PyTorch float32, and by the backend's sessions
on the same frames. What lies between them is what the deployment costs in prediction quality.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import sum_up
from wmdeploy.clips.find import left_out_line, search
from wmdeploy.clips.footage import Footage, clip_digest, read_footage
from wmdeploy.clips.read import look, open_source
from wmdeploy.clips.source import ReadOptions
from wmdeploy.codes import CodeCount
from wmdeploy.engines.base import BASELINE, Backend, Settings, load_backend
from wmdeploy.engines.devices import pytorch_device
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.engines.same_codes import TieFinder, with_same_codes
from wmdeploy.errors import ClipError, WmdeployError
from wmdeploy.families import family_of, load_model
from wmdeploy.families.directory import TrainingNotes, read_training
from wmdeploy.families.precision import allow_tf32
from wmdeploy.files import real_path
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.programs.session import Session
from wmdeploy.progress import Progress, silent
from wmdeploy.quality.measure import evaluate as measure
from wmdeploy.quality.plots import strip
from wmdeploy.quality.predict import imagine_frames
from wmdeploy.quality.report import QualityReport

_STRIP_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate.

    Attributes:
        source: a model directory, a `.pt`, a preset, or a bundle.
        data: folders of clips. Those that the model says it was trained on are left out.
        backend: for a bundle, default `ort-cpu`.
        context: frames given to a rollout.
        clips: at most so many of each folder; None for all.
        settings: of the backend; its device is the PyTorch model's too.
        pictures: whether to draw the strip.
        read: how the clips are read.
        family: of a model that does not name its own.
    """

    source: str
    data: tuple[Path, ...]
    backend: str | None = None
    context: int = 8
    clips: int | None = None
    settings: Settings = Settings()
    pictures: bool = False
    read: ReadOptions = ReadOptions()
    family: str | None = None


class SessionRunner:
    """A backend's sessions, for `wmdeploy.quality.measure`.

    Args:
        model: PyTorch's side, from whose codes the sessions go on where the backend's tie.
    """

    def __init__(self, backend: Backend, model: nn.Module) -> None:
        self.name = backend.name
        self._ties = TieFinder(model, backend.precision)
        self._session = Session(with_same_codes(backend, self._ties))
        self._conditioned = backend.programs.action is not None

    @property
    def codes(self) -> CodeCount:
        """The backend's codes beside the model's, of all frames so far."""
        return self._ties.count

    def following(
        self, frames: Iterable[np.ndarray], codes: np.ndarray, actions: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """See `wmdeploy.quality.measure.Runner`."""
        for index, frame in enumerate(frames):
            self._ties.expect(frame[None], codes[index : index + 1])
            if index == 0:
                self._session.reset(frame[None])
                continue
            yield self._session.step(self._action(actions, index - 1))[0]
            self._session.observe(frame)

    def rollout(
        self, frames: np.ndarray, codes: np.ndarray, horizon: int, actions: np.ndarray | None
    ) -> np.ndarray:
        """See `wmdeploy.quality.measure.Runner`."""
        self._ties.expect(frames, codes)
        given = len(frames) - 1
        taken = actions if self._conditioned else None
        self._session.reset(frames, None if taken is None else taken[:given])
        steps = range(given, given + horizon)
        return np.stack([self._session.step(self._action(actions, step))[0] for step in steps])

    def _action(self, actions: np.ndarray | None, index: int) -> int | None:
        return int(actions[index]) if self._conditioned and actions is not None else None


def evaluate(
    options: EvaluateOptions,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[QualityReport, np.ndarray | None]:
    """Scores, and the strip of pictures if it was asked for.

    `tell` is called, before anything long begins, with the remarks of `load_model`, with what is
    not read and how the rest is.

    Raises:
        CheckpointError, BundleError, BackendError: the source cannot be loaded or run.
        ClipError: there is no clip left to evaluate on, or it does not fit.
    """
    remarks: list[str] = []
    model, training, runner = _load(options, remarks)
    for remark in remarks:
        tell(remark)
    trained_on = set(training.clips)
    facts = family_of(model).facts(model)
    size, conditioned = facts.image_size, facts.num_actions > 0
    skipped: list[str] = []
    paths: list[Path] = []
    roots = [real_path(folder) for folder in options.data]
    for root in roots:
        paths += _usable(
            root,
            trained_on,
            options=options,
            size=size,
            conditioned=conditioned,
            skipped=skipped,
            tell=tell,
        )
    if not paths:
        raise ClipError("data: no clip is left to evaluate on; " + "; ".join(skipped[:3]))
    footage = read_footage(
        paths,
        size,
        actions=conditioned,
        skipped=skipped,
        progress=progress,
        roots=roots,
        options=options.read,
    )
    if options.pictures and not _drawable(footage, options.context):
        raise ClipError(
            f"strip: no clip has {options.context + _STRIP_FRAMES} frames; leave the strip out, or "
            "give a longer clip"
        )
    report = measure(
        model,
        footage,
        name=options.source,
        runner=runner,
        context=options.context,
        skipped=skipped,
        progress=progress,
    )
    return report, _strip(model, footage, options.context) if options.pictures else None


def _load(
    options: EvaluateOptions, remarks: list[str]
) -> tuple[nn.Module, TrainingNotes, SessionRunner | None]:
    """The PyTorch model, what its training noted, and the backend that runs it, if one does."""
    path = Path(options.source)
    device = pytorch_device(BASELINE, options.settings)
    allow_tf32(options.settings.tf32)
    if not (path / MANIFEST_FILE).is_file():
        if options.backend not in (None, BASELINE):
            raise WmdeployError(
                f"backend {options.backend} runs bundles, and {path} is a model; "
                f"export it first: wmdeploy export {path} -o BUNDLE"
            )
        model = load_model(options.source, remarks=remarks, family=options.family)
        return model.to(device), read_training(path), None
    bundle = Bundle.open(path)
    model, training = bundled_model(bundle), read_training(bundle.checked_model())
    backend = load_backend(options.backend or "ort-cpu", bundle, options.settings)
    return model.to(device), training, SessionRunner(backend, model)


def _usable(
    folder: Path,
    trained_on: set[str],
    options: EvaluateOptions,
    size: int,
    conditioned: bool,
    skipped: list[str],
    tell: Callable[[str], None],
) -> list[Path]:
    """The clips of a folder that can be judged on."""
    here = search(folder, options.read.series)
    if line := left_out_line(folder, here):
        tell(line)
    usable: list[Path] = []
    trained = 0
    notes: list[list[str]] = []
    for path in here.clips:
        if options.clips is not None and len(usable) == options.clips:
            break
        try:
            if trained_on and clip_digest(path) in trained_on:
                trained += 1
                continue
            source = open_source(path, options.read)
            if (count := source.count()) < 2:
                skipped.append(f"{path}: has {count} frame, and nothing follows it")
                continue
            if conditioned:
                source.integer_actions()
            look(source, size, options.read.fit)
        except ClipError as error:
            skipped.append(str(error))
            continue
        usable.append(path)
        notes.append(source.notes)
    for line in sum_up(notes):
        tell(line)
    if trained:
        skipped.append(f"{folder}: {trained} clips that the model was trained on")
    return usable


def _drawable(footage: Footage, context: int) -> list[int]:
    """The clips that are long enough for the strip."""
    lengths = footage.spans.lengths
    return [i for i, length in enumerate(lengths) if length >= context + _STRIP_FRAMES]


def _strip(model: nn.Module, footage: Footage, context: int) -> np.ndarray:
    """For each folder's first clip that is long enough: real frames, and below them imagined."""
    horizon = _STRIP_FRAMES
    conditioned = family_of(model).facts(model).num_actions > 0
    rows: list[np.ndarray] = []
    shown: set[str] = set()
    for index in _drawable(footage, context):
        group = footage.groups[index]
        if group in shown:
            continue
        shown.add(group)
        frames = footage.clip(index, 0, context + horizon)
        taken = footage.clip_actions(index)
        actions = None
        if conditioned and taken is not None:
            actions = taken[: context + horizon - 1]
        imagined = imagine_frames(model, frames[:context], horizon, actions)
        rows += [frames[context : context + horizon], imagined]
    return strip(rows, columns=8, scale=max(1, 96 // rows[0].shape[1]))
