"""Read whatever a trainer saved: wrapped, in several files, with objects that are not executed."""

import json
import reprlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.families.pickles import NumpyArray, listed, read_pickle
from wmdeploy.files import read_document, refuse_pointer

# what torch's wrappers of a module add to the names inside: DDP, compile, FSDP, checkpointing
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
DEEPEST = 16  # of dictionaries in dictionaries

# what trainers write into a folder: the first of these that is there is the model
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


CHECKPOINT_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}
FORMAT_UTILS = "torch.distributed.checkpoint.format_utils"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """All tensors of a trainer's file, or of a folder of them, and remarks on what was left out.

    Returns:
        By the keys that lead to each, with dots between, without what torch's wrappers add. One
        tensor may have several names: a policy, say, that holds the world model, too.

    Raises:
        CheckpointError: it cannot be read, or holds no tensors.
    """
    document, unknown = read_saved(path)
    tensors: dict[str, Tensor] = {}
    for full, tensor in tensors_in(document):
        name = ".".join(step for step in full.split(".") if step not in WRAPPERS)
        if name in tensors:
            raise CheckpointError(f'{path}: holds the tensor "{name}" twice')
        tensors[name] = tensor
    if not tensors:
        raise no_weights(path, document, unknown)
    _check_strides(tensors, path)
    if not unknown:
        return tensors, ()
    return tensors, (f"{path}: left out, and not executed: objects of {listed(unknown)}",)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model as trainers write it."""
    return any((folder / name).is_file() for name in FOLDER_FILES)


def other_checkpoint(folder: Path) -> str:
    """For a message: what to give instead of a folder with checkpoints of another kind, or ""."""
    if sharded := sorted((*folder.glob("*.distcp"), *folder.glob("*/*.distcp"))):
        return (
            f"; it is a sharded checkpoint: if it is your own (this runs pickle), join it with "
            f"python -m {FORMAT_UTILS} dcp_to_torch "
            f"{sharded[0].parent} model.pt"
        )
    files = [path for place in ("*", "*/*") for path in sorted(folder.glob(place))]
    checkpoint = next((path for path in files if path.suffix in CHECKPOINT_SUFFIXES), None)
    return f"; it holds a checkpoint, give that: {checkpoint}" if checkpoint else ""


def read_saved(path: Path) -> tuple[Any, list[str]]:
    """What a trainer's file holds, or a folder of them, and the names in it that were not built.

    Raises:
        CheckpointError: it cannot be read.
    """
    if path.is_dir():
        file = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
        if file is None:
            raise CheckpointError(
                f"{path}: expected one of {', '.join(FOLDER_FILES)} in it" + other_checkpoint(path)
            )
        return read_saved(file)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path), []
    return read_pickle(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        CheckpointError: it is damaged, or no safetensors file.
    """
    refuse_pointer(path, CheckpointError)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: damaged or no safetensors file ({error}); copy or train the model again"
        ) from error


def _read_shards(index: Path) -> tuple[Any, list[str]]:
    """The tensors of all files that an index names, each of which lies beside it."""
    refuse_pointer(index, CheckpointError)
    try:
        files = set(json.loads(read_document(index))["weight_map"].values())
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index}: is no index of shards ({reprlib.repr(error)})") from error
    tensors: dict[str, Any] = {}
    unknown: list[str] = []
    for name in sorted(map(str, files)):
        shard = index.parent / name
        if Path(name).name != name or not shard.is_file():
            raise CheckpointError(
                f"{index}: names the shard {reprlib.repr(name)}, which is no file beside it; "
                "copy all shards into one folder"
            )
        document, more = read_saved(shard)
        if not isinstance(document, dict) or document.keys() & tensors.keys():
            raise CheckpointError(f"{shard}: is no shard, or repeats the tensors of another one")
        tensors |= document
        unknown += more
    return tensors, sorted(set(unknown))


def tensors_in(document: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in dictionaries and lists, with the keys that lead to it; each of them once."""
    waiting, seen = deque([(document, "", 0)]), set()
    while waiting:
        value, name, depth = waiting.popleft()
        if isinstance(value, NumpyArray):
            value = value.tensor()
        if isinstance(value, Tensor):
            yield name, value
        if not isinstance(value, dict | list | tuple) or id(value) in seen or depth > DEEPEST:
            continue
        seen.add(id(value))
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        before = f"{name}." if name else ""
        waiting += [(inner, f"{before}{key}", depth + 1) for key, inner in entries]


def check_memory(weights: dict[str, Tensor], path: Path) -> None:
    """Refuse tensors that would be larger in memory than they are in the file.

    A few bytes of a file can claim any size: by strides of 0, or by many tensors of one storage.

    Raises:
        CheckpointError: they would be.
    """
    _check_strides(weights, path)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    storages = [tensor.untyped_storage() for tensor in weights.values()]
    stored = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if claimed > stored:
        raise CheckpointError(
            f"{path}: its tensors share memory: {claimed} bytes of {stored} in the file; save them "
            "with .clone()"
        )


def _check_strides(weights: dict[str, Tensor], path: Path) -> None:
    for name, tensor in weights.items():
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
            raise CheckpointError(
                f'{path}: tensor "{name}": got {tensor.layout} {type(tensor).__name__}, expected a '
                "dense tensor; gather and save it as one"
            )
        storage, needed = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        if needed > storage.nbytes():
            raise CheckpointError(
                f'{path}: tensor "{name}": got shape {tuple(tensor.shape)} and strides '
                f"{tensor.stride()}, {needed} bytes of {storage.nbytes()} in the file; save it "
                "with .contiguous()"
            )


def no_weights(path: Path, document: Any, unknown: list[str]) -> CheckpointError:
    """Why nothing was found."""
    save = "save it again as {'model_state_dict': model.state_dict()}"
    if any(name.startswith("torch.nn.modules.") for name in unknown):
        return CheckpointError(
            f"{path}: holds a whole module ({listed(unknown)}), which is code; it was not "
            f"executed: {save}"
        )
    if unknown:
        return CheckpointError(
            f"{path}: holds objects of {listed(unknown)} and no weights; it was not executed: "
            f"{save}"
        )
    keys = list(document)[:6] if isinstance(document, dict) else []
    names = f" with {', '.join(map(reprlib.repr, keys))}" if keys else ""
    return CheckpointError(
        f"{path}: expected a dict with 'model_state_dict' (name -> dense tensor), "
        f"got {type(document).__name__}{names}"
    )
