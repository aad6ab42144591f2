"""Models on disk: our directories of safetensors + JSON, and what other programs saved.

A model file is untrusted: no pickle is executed (safetensors; `weights_only=True` for `.pt`), sizes
are checked before tensors are used, and weights that are not finite are refused.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.files import DirectoryKind, read_document, refuse_pointer, staged_directory
from wmdeploy.manifest import bundle_inside, not_the_folder
from wmdeploy.models.config import PRESETS, WorldModelConfig, preset
from wmdeploy.models.reference import load_reference
from wmdeploy.models.temporal import sinusoidal_positions
from wmdeploy.models.weights import has_weights, other_checkpoint, read_safetensors
from wmdeploy.models.world_model import WorldModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA = 1
MODEL_KIND = DirectoryKind(CONFIG_FILE, "config", (WEIGHTS_FILE,))


@dataclass(frozen=True)
class TrainingNotes:
    """What `wmdeploy train` notes on a model.

    Attributes:
        options: all that decided the weights; summary: a `TrainSummary`. Both as JSON types.
        clips: the digests of the clips that it was trained on.
    """

    options: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    clips: tuple[str, ...] = ()


def load_model(source: str | Path, seed: int = 0, remarks: list[str] | None = None) -> WorldModel:
    """Load a model in float32 on the CPU, in evaluation mode.

    Args:
        source: a model directory, a checkpoint of the reference project as any trainer wraps it
            (`.pt`, `.ckpt`, `.bin`, `.safetensors`, a folder of shards), or a preset's name, which
            gives untrained weights drawn from `seed`.
        remarks: gets a line for each thing that a user should know: which weights of a file that
            holds several were taken, and what was left out.

    Raises:
        CheckpointError: it is none of these, is damaged, or holds weights that are not finite.
    """
    path = Path(source)
    if advice := not_the_folder(path):
        raise CheckpointError(advice)
    if path.is_dir() and (_is_ours(path) or not has_weights(path)):
        model = _load_directory(path)
    elif path.is_file() and path.name == WEIGHTS_FILE and _is_ours(path.parent):
        raise CheckpointError(f"{path}: give the model directory that holds it, {path.parent}")
    elif path.is_file() or path.is_dir():
        config, weights = load_reference(path)
        model = _assemble(config, weights.state, path)
        if remarks is not None:
            remarks += weights.remarks
    elif str(source) in PRESETS:
        model = WorldModel(preset(str(source))).initialize(seed)
    else:
        raise CheckpointError(
            f"model {str(source)!r}: no such directory, file or preset; expected a model directory "
            f"({CONFIG_FILE} and {WEIGHTS_FILE}), a checkpoint of the reference project, "
            f"or one of the presets {', '.join(PRESETS)}"
        )
    return model.eval().requires_grad_(False)


def save_model(model: WorldModel, target: Path, about: dict[str, Any] | None = None) -> None:
    """Write a model directory; it appears whole or not at all.

    Args:
        about: JSON-serialisable notes on the model's origin, kept in its config.json.

    Raises:
        WmdeployError: `target` is something else, or cannot be written.
    """
    with staged_directory(target, MODEL_KIND) as directory:
        write_model_files(model, directory, about)


def write_model_files(
    model: WorldModel, directory: Path, about: dict[str, Any] | None = None
) -> None:
    """The two files of a model directory, into a directory that the caller stages."""
    document = {"schema": SCHEMA, "config": model.config.to_dict(), "about": about or {}}
    (directory / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n")
    try:
        save_file(model.state_dict(), directory / WEIGHTS_FILE)
    except SafetensorError as error:  # its own type for a full disk
        raise OSError(None, str(error)) from error


def read_config(directory: Path) -> WorldModelConfig:
    """The sizes of the model in a model directory.

    Raises:
        CheckpointError: config.json is missing, damaged, or of a newer schema.
    """
    path = directory / CONFIG_FILE
    refuse_pointer(path, CheckpointError)
    try:
        document = json.loads(read_document(path))
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory}: no {CONFIG_FILE}; expected a model directory with {CONFIG_FILE} "
            f"and {WEIGHTS_FILE}, as `wmdeploy train` writes it"
            + (bundle_inside(directory) or other_checkpoint(directory))
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        schema = document.get("schema") if isinstance(document, dict) else None
        raise CheckpointError(
            f"{path}: got schema {schema}, expected {SCHEMA}; "
            "a newer wmdeploy wrote it: upgrade, or it is not a model directory"
        )
    try:
        return WorldModelConfig.from_dict(document.get("config"))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_notes(source: str | Path) -> dict[str, Any]:
    """What a model directory notes on its origin, see `save_model`; {} where there are no notes.

    Raises:
        CheckpointError: its config.json is damaged.
    """
    path = Path(source) / CONFIG_FILE
    if not _is_ours(path.parent):
        return {}
    read_config(path.parent)
    about = json.loads(read_document(path)).get("about") or {}
    return _convert(about, dict[str, Any], path)


def read_training(source: str | Path) -> TrainingNotes:
    """What a training noted in its model directory; nothing in it for a model of other origin.

    Raises:
        CheckpointError: the notes are damaged.
    """
    notes = read_notes(source).get("training") or {}
    return _convert(notes, TrainingNotes, Path(source) / CONFIG_FILE)


def _convert(notes: object, kind: Any, path: Path) -> Any:
    try:
        return msgspec.convert(notes, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{path}: its notes are damaged ({error}); copy the model again, or take the notes out"
        ) from error


def _load_directory(directory: Path) -> WorldModel:
    config = read_config(directory)
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{directory}: no {WEIGHTS_FILE}; the model directory is incomplete")
    return _assemble(config, read_safetensors(path), path)


def _is_ours(directory: Path) -> bool:
    """Whether its config.json is for `read_config` to judge; other programs have one, too."""
    try:
        document = json.loads(read_document(directory / CONFIG_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(document, dict) or "schema" in document


def _assemble(config: WorldModelConfig, state: dict[str, Tensor], path: Path) -> WorldModel:
    """A model of `config` that owns the tensors of `state`, after checking every one of them."""
    with torch.device("meta"):
        model = WorldModel(config)
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    for label, names in (("is missing", missing), ("is not one of this model's", extra)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f'{path}: tensor "{names[0]}" {label}{more}')
    floats: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f'{path}: tensor "{name}": got shape {tuple(tensor.shape)}, '
                f"expected {tuple(expected[name].shape)}"
            )
        if not tensor.is_floating_point() or tensor.is_meta:
            raise CheckpointError(
                f'{path}: tensor "{name}": {tensor.dtype}, expected finite floats'
            )
        floats[name] = tensor.to(torch.float32)
        if not torch.isfinite(floats[name]).all():
            raise CheckpointError(f'{path}: tensor "{name}": holds NaN or infinity in float32')
    model.load_state_dict(floats, assign=True)
    # not in any checkpoint: a table, still on the meta device
    temporal = config.temporal
    model.temporal_model.positions = sinusoidal_positions(temporal.context, temporal.d_model)
    return model
