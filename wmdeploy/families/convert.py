"""From a checkpoint that a family's authors saved to a model directory."""

import reprlib
from pathlib import Path

from wmdeploy.errors import CheckpointError
from wmdeploy.families.directory import MODEL_KIND, assemble, is_model_directory
from wmdeploy.families.find import load_family
from wmdeploy.families.weights import check_memory, read_tensors
from wmdeploy.files import check_output_directory, sha256, staged_directory


def convert(source: Path, family: str, output: Path) -> list[str]:
    """Write the model directory of a checkpoint; it appears whole or not at all.

    Args:
        source: a file of torch.save or safetensors, an index of shards, or a folder with one of
            them. Nothing in it is executed.
        family: that which it is of.

    Returns:
        Remarks on what was left out.

    Raises:
        CheckpointError: it cannot be read, or is no model of that family.
        FamilyError: there is no such family.
        WmdeployError: the output is something else, or cannot be written.
    """
    check_output_directory(output, source)
    kind = load_family(family)
    if not source.exists():
        raise CheckpointError(f"{source}: no such file; expected a checkpoint of torch.save")
    if is_model_directory(source):
        raise CheckpointError(f"{source}: is a model directory already; export it as it is")
    tensors, remarks = read_tensors(source)
    try:
        config, state = kind.convert(tensors)
    except KeyError as error:
        raise CheckpointError(
            f"{source}: the tensor {error} of the family {family} is missing; its tensors have "
            f"names such as {reprlib.repr(next(iter(tensors)))}"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    check_memory(state, source)
    model = assemble(kind, config, state, source)
    notes = {"converted from": f"sha256:{sha256(source)}"} if source.is_file() else {}
    with staged_directory(output, MODEL_KIND) as directory:
        kind.save(model, directory, notes)
    return list(remarks)
