"""Load a world model from whatever holds one: a model directory, a checkpoint, a preset's name."""

from pathlib import Path
from typing import TYPE_CHECKING

from wmdeploy.errors import CheckpointError
from wmdeploy.families.directory import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    assemble,
    is_model_directory,
    load_directory,
)
from wmdeploy.families.reference.config import PRESETS
from wmdeploy.families.reference.reference import load_reference
from wmdeploy.families.weights import has_weights, other_checkpoint
from wmdeploy.manifest import bundle_inside

if TYPE_CHECKING:
    from torch import nn

    from wmdeploy.families.reference.family import ReferenceFamily


def load_checkpoint(
    family: "ReferenceFamily", source: str, seed: int, remarks: list[str] | None
) -> "nn.Module":
    """A model in float32 on the CPU, in evaluation mode.

    Args:
        source: a model directory, a checkpoint of the reference project as any trainer wraps it
            (`.pt`, `.ckpt`, `.bin`, `.safetensors`, a folder of shards), or a preset's name, which
            gives untrained weights drawn from `seed`.
        remarks: gets a line for each thing that a user should know: which weights of a file that
            holds several were taken, and what was left out.

    Raises:
        CheckpointError: it is none of these, is damaged, or holds weights that are not finite.
    """
    from wmdeploy.families.reference.distillation import check_student

    path = Path(source)
    if is_model_directory(path):
        model = load_directory(family, path)
        check_student(model, source)
        return model
    if path.is_file() and path.name == WEIGHTS_FILE and is_model_directory(path.parent):
        raise CheckpointError(f"{path}: give the model directory that holds it, {path.parent}")
    if path.is_dir() and not has_weights(path):
        raise CheckpointError(
            f"{path}: no {CONFIG_FILE}; expected a model directory with {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}, as `wmdeploy train` writes it"
            + (bundle_inside(path) or other_checkpoint(path))
        )
    if path.is_file() or path.is_dir():
        config, weights = load_reference(path)
        if remarks is not None:
            remarks += weights.remarks
        return assemble(family, config, weights.state, path)
    if source in PRESETS:
        return family.initialized(PRESETS[source], seed)
    raise CheckpointError(
        f"model {source!r}: no such directory, file or preset; expected a model directory "
        f"({CONFIG_FILE} and {WEIGHTS_FILE}), a checkpoint of the reference project, "
        f"one of the presets {', '.join(PRESETS)}, or a preset of another family, named with it"
    )
