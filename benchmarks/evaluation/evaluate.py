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
from wmdeploy.clips.clip import check_actions, sum_up
from wmdeploy.clips.find import left_out_line, search
from wmdeploy.clips.footage import Footage, clip_digest, read_footage
from wmdeploy.clips.read import look, open_source
from wmdeploy.clips.source import ReadOptions
from wmdeploy.codes import CodeCount
from wmdeploy.engines.base import BASELINE, Backend, Settings, load_backend
from wmdeploy.engines.devices import pytorch_device
from wmdeploy.engines.pytorch.eager import baseline, bundled_model
from wmdeploy.engines.same_codes import TieFinder, with_same_codes
from wmdeploy.errors import ClipError, WmdeployError
from wmdeploy.families import ModelFacts, family_of, load_model
from wmdeploy.families.directory import TrainingNotes, read_training
from wmdeploy.families.precision import allow_tf32
from wmdeploy.families.reference.family import ReferenceFamily
from wmdeploy.files import real_path
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.programs.contract import FULL
from wmdeploy.progress import Progress, silent
from wmdeploy.quality.frames import SessionRunner, evaluate_frames
from wmdeploy.quality.measure import evaluate as measure
from wmdeploy.quality.plots import strip
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
        settings: of the backend; its device is the PyTorch model's too. Where its decoder is a
            student, that is judged beside the full one, and the strip shows it.
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


class TiedRunner:
    """A backend's sessions that go on from the model's codes where their own tie with them.

    Args:
        model: of the reference family.
    """

    def __init__(self, backend: Backend, model: nn.Module, decoder: str = FULL) -> None:
        self.name = _label(backend, decoder)
        self._ties = TieFinder(model, backend.precision)
        self._sessions = SessionRunner(with_same_codes(backend, self._ties))

    @property
    def codes(self) -> CodeCount:
        """The backend's codes beside the model's, of all frames so far."""
        return self._ties.count

    def following(
        self, frames: Iterable[np.ndarray], codes: np.ndarray, actions: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """See `wmdeploy.quality.measure.Runner`."""
        return self._sessions.following(self._expected(frames, codes), actions)

    def rollout(
        self, frames: np.ndarray, codes: np.ndarray, horizon: int, actions: np.ndarray | None
    ) -> np.ndarray:
        """See `wmdeploy.quality.measure.Runner`."""
        self._ties.expect(frames, codes)
        return self._sessions.rollout(frames, horizon, actions)

    def _expected(self, frames: Iterable[np.ndarray], codes: np.ndarray) -> Iterator[np.ndarray]:
        for index, frame in enumerate(frames):
            self._ties.expect(frame[None], codes[index : index + 1])
            yield frame


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
    model, training, backend = _load(options, remarks)
    for remark in remarks:
        tell(remark)
    device, decoder = pytorch_device(BASELINE, options.settings), options.settings.decoder
    pytorch = SessionRunner(baseline(model, device))
    shown = SessionRunner(baseline(model, device, decoder=decoder), decoder)
    trained_on = set(training.clips)
    facts = family_of(model).facts(model)
    size, conditioned = facts.image_size, facts.num_actions + facts.action_size > 0
    skipped: list[str] = []
    paths: list[Path] = []
    roots = [real_path(folder) for folder in options.data]
    for root in roots:
        paths += _usable(
            root,
            trained_on,
            options=options,
            facts=facts,
            least=pytorch.least,
            skipped=skipped,
            tell=tell,
        )
    if not paths:
        raise ClipError("data: no clip is left to evaluate on; " + "; ".join(skipped[:3]))
    footage = read_footage(
        paths,
        size,
        actions=conditioned,
        vectors=facts.action_size > 0,
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
    if model.family == ReferenceFamily.name:
        report = measure(
            model,
            footage,
            name=options.source,
            runner=None if backend is None else TiedRunner(backend, model, decoder),
            decoder=decoder,
            context=options.context,
            skipped=skipped,
            progress=progress,
        )
    else:
        runners = [pytorch]
        if backend is not None:
            runners.append(SessionRunner(backend, _label(backend, decoder)))
        if decoder != FULL:
            runners.append(shown)
        report = evaluate_frames(
            runners,
            footage,
            name=options.source,
            context=options.context,
            skipped=skipped,
            progress=progress,
        )
    return report, _strip(shown, footage, options.context) if options.pictures else None


def _label(backend: Backend, decoder: str) -> str:
    """What a backend is called beside the model, which has the full decoder."""
    return backend.name if decoder == FULL else f"{backend.name}, {decoder}"


def _load(
    options: EvaluateOptions, remarks: list[str]
) -> tuple[nn.Module, TrainingNotes, Backend | None]:
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
    return model.to(device), training, backend


def _usable(
    folder: Path,
    trained_on: set[str],
    options: EvaluateOptions,
    facts: ModelFacts,
    least: int,
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
            if (count := source.count()) <= least:
                skipped.append(f"{path}: has {count} frame{'s' * (count > 1)}, and nothing follows")
                continue
            if facts.action_size:
                check_actions(source.actions(), 0, str(path), facts.action_size)
            elif facts.num_actions:
                source.integer_actions()
            look(source, facts.image_size, options.read.fit)
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


def _strip(model: SessionRunner, footage: Footage, context: int) -> np.ndarray:
    """For each folder's first clip that is long enough: real frames, and below them imagined."""
    horizon = _STRIP_FRAMES
    rows: list[np.ndarray] = []
    shown: set[str] = set()
    for index in _drawable(footage, context):
        group = footage.groups[index]
        if group in shown:
            continue
        shown.add(group)
        frames = footage.clip(index, 0, context + horizon)
        taken = footage.clip_actions(index)
        actions = None if taken is None else taken[: context + horizon - 1]
        rows += [frames[context:], model.rollout(frames[:context], horizon, actions)]
    return strip(rows, columns=8, scale=max(1, 96 // rows[0].shape[1]))
