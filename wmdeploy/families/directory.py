"""Model directories: `config.json` and `model.safetensors`, of every family.

    {"schema": 1, "family": "tokens", "config": {...}, "about": {...}}

`config` are the model's sizes, `about` notes on its origin. Strangers write such files: sizes are
checked before anything is built of them, and every tensor before it is used.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wmdeploy.documents import unknown_setting
from wmdeploy.errors import CheckpointError
from wmdeploy.files import DirectoryKind, read_document, refuse_pointer
from wmdeploy.manifest import bundle_inside

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wmdeploy.families.family import ModelFamily

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA = 1
# parts of a model's notes; of a distillation by the part of the model that it imitates
TRAINING = "training"
LAST = "last"  # note of which part made the model as it is
DISTILLATION = {"decoder": "distillation", "encoder": "encoder distillation"}
MODEL_KIND = DirectoryKind(CONFIG_FILE, "config", (WEIGHTS_FILE,))
LARGEST_SIZE = 2**20  # of any number in a config; a damaged file could claim anything
MOST_SIZES = 1000  # in a config


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


def write_model_files(
    family: "ModelFamily", model: "nn.Module", directory: Path, about: dict[str, Any] | None = None
) -> None:
    """The two files of a model directory, into a directory that the caller stages.

    All of `state_dict()` is saved as it is: tied weights under each of their names, integer buffers
    as integers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    document = {
        "schema": SCHEMA,
        "family": family.name,
        "config": family.sizes(model),
        "about": about or {},
    }
    (directory / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n")
    try:
        save_file(_apart(model.state_dict()), directory / WEIGHTS_FILE)
    except SafetensorError as error:  # its own type for a full disk
        raise OSError(None, str(error)) from error


def _apart(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """What safetensors takes: contiguous tensors, each with memory of its own. Few are copied."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        whole = tensor.contiguous()
        place = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if place in taken else whole
        taken.add(place)
    return apart


def is_model_directory(directory: Path) -> bool:
    """Whether its config.json is for `read_model_document` to judge; other programs have one."""
    try:
        document = json.loads(read_document(directory / CONFIG_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(document, dict) or "schema" in document


def read_model_document(directory: Path) -> dict[str, Any]:
    """What config.json of a model directory says; its `config` is still to be checked.

    Raises:
        CheckpointError: it is missing, damaged, or of a newer schema.
    """
    path = directory / CONFIG_FILE
    refuse_pointer(path, CheckpointError)
    try:
        document = json.loads(read_document(path))
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory}: no {CONFIG_FILE}; expected a model directory with {CONFIG_FILE} "
            f"and {WEIGHTS_FILE}, as `wmdeploy train` writes it" + bundle_inside(directory)
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        schema = document.get("schema") if isinstance(document, dict) else None
        raise CheckpointError(
            f"{path}: got schema {schema}, expected {SCHEMA}; "
            "a newer wmdeploy wrote it: upgrade, or it is not a model directory"
        )
    return document


def parse_config(family: "ModelFamily", document: object) -> Any:
    """A family's sizes, from what a stranger wrote.

    Raises:
        CheckpointError: a field is missing, unknown, of another type or out of range.
    """
    _check_numbers(document)
    try:
        config: Any = msgspec.convert(document, family.config)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"model config: {error}") from None
    if name := _unknown(document, config):
        raise CheckpointError(
            f"model config, {name}, and this version of the family {family.name} has no such "
            "setting; train the model again, or use the version that made it"
        )
    return config


def read_config(family: "ModelFamily", directory: Path) -> Any:
    """The sizes of the model in a model directory.

    Raises:
        CheckpointError: config.json is missing, damaged, or of a newer schema.
    """
    document = read_model_document(directory)
    try:
        return parse_config(family, document.get("config"))
    except CheckpointError as error:
        raise CheckpointError(f"{directory / CONFIG_FILE}: {error}") from None


def load_directory(family: "ModelFamily", source: str | Path) -> "nn.Module":
    """The model in a model directory, in evaluation mode.

    Raises:
        CheckpointError: it is incomplete, damaged, or of another family.
    """
    from wmdeploy.families.weights import read_safetensors

    directory = Path(source)
    named = read_model_document(directory).get("family", family.name)
    if named != family.name:
        raise CheckpointError(f"{directory}: is of the family {named}, expected {family.name}")
    config = read_config(family, directory)
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{directory}: no {WEIGHTS_FILE}; the model directory is incomplete")
    return assemble(family, config, read_safetensors(path), path)


def assemble(
    family: "ModelFamily", config: Any, state: "dict[str, Tensor]", path: Path
) -> "nn.Module":
    """A model that owns the tensors of `state`, after checking every one of them.

    Args:
        path: where they are from, for messages.

    Raises:
        CheckpointError: a tensor is missing, left over, of another shape or not finite.
    """
    import torch

    with torch.device("meta"):
        model = family.build(config)
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    for label, names in (("is missing", missing), ("is not one of this model's", extra)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f'{path}: tensor "{names[0]}" {label}{more}')
    owned: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f'{path}: tensor "{name}": got shape {tuple(tensor.shape)}, '
                f"expected {tuple(expected[name].shape)}"
            )
        wanted = expected[name].dtype
        counts = not wanted.is_floating_point and tensor.dtype == wanted  # as BatchNorm's batches
        if not (tensor.is_floating_point() or counts) or tensor.is_meta:
            raise CheckpointError(
                f'{path}: tensor "{name}": {tensor.dtype}, expected finite floats'
            )
        owned[name] = tensor if counts else tensor.to(torch.float32)
        if not torch.isfinite(owned[name]).all():
            raise CheckpointError(f'{path}: tensor "{name}": holds NaN or infinity in float32')
    model.load_state_dict(owned, assign=True)
    family.constants(model)
    if left := next((n for n, b in model.named_buffers() if b.is_meta), None):
        raise CheckpointError(
            f'family {family.name}: its buffer "{left}" is in no file; fill it in `constants`'
        )
    return model.eval().requires_grad_(False)


def read_notes(source: str | Path) -> dict[str, Any]:
    """What a model directory notes on its origin, see `save_model`; {} where there are no notes.

    Raises:
        CheckpointError: its config.json is damaged.
    """
    directory = Path(source)
    if not is_model_directory(directory):
        return {}
    about = read_model_document(directory).get("about") or {}
    return _convert(about, dict[str, Any], directory / CONFIG_FILE)


def read_training(source: str | Path, part: str = TRAINING) -> TrainingNotes:
    """What a training noted in its model directory; nothing in it for a model of other origin.

    Args:
        part: of the notes; see `TRAINING` and `DISTILLATION`.

    Raises:
        CheckpointError: the notes are damaged.
    """
    notes = read_notes(source).get(part) or {}
    return _convert(notes, TrainingNotes, Path(source) / CONFIG_FILE)


def _convert(notes: object, kind: Any, path: Path) -> Any:
    try:
        return msgspec.convert(notes, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{path}: its notes are damaged ({error}); copy the model again, or take the notes out"
        ) from error


def _check_numbers(document: object) -> None:
    """Refuse sizes that no model has, whatever family asks for them."""
    waiting, seen = [document], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > MOST_SIZES:
            raise CheckpointError(f"model config: it has more than {MOST_SIZES} entries")
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int) and abs(value) > LARGEST_SIZE:
            raise CheckpointError(f"model config: got {value}, expected at most {LARGEST_SIZE}")


def _unknown(document: Any, config: Any) -> str | None:
    """The first setting, in the config or one of its parts, that its dataclass lacks."""
    if name := unknown_setting(document, type(config)):
        return f"{name}: got {document[name]!r}"
    for name, value in document.items():
        part = getattr(config, name, None)
        if isinstance(value, dict) and hasattr(part, "__dataclass_fields__"):
            if inner := _unknown(value, part):
                return f"{name}.{inner}"
    return None
