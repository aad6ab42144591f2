"""Models on disk: our directories of safetensors + JSON, and the reference project's `.pt` files.

A model file is untrusted: no pickle is executed (safetensors; `weights_only=True` for `.pt`), sizes
are checked before tensors are used, and weights that are not finite are refused.
"""

import json
import math
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wmdeploy.errors import CheckpointError
from wmdeploy.files import DirectoryKind, read_document, staged_directory
from wmdeploy.models.config import (
    PRESETS,
    TemporalConfig,
    VQVAEConfig,
    WorldModelConfig,
    preset,
)
from wmdeploy.models.temporal import sinusoidal_positions
from wmdeploy.models.world_model import WorldModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA = 1
MODEL_KIND = DirectoryKind(CONFIG_FILE, "config", (WEIGHTS_FILE,))

REFERENCE_HEADS = 8  # fixed in the reference project, and not to be seen in its tensors
# the convolution of each stage that halves the resolution
REFERENCE_HALVING = re.compile(r"vqvae\.encoder\.encoder\.(\d+)\.1\.conv1\.weight")
REFERENCE_POSITIONS = "temporal_model.pos_encoding.pe"


def load_model(source: str | Path, seed: int = 0) -> WorldModel:
    """Load a model in float32 on the CPU, in evaluation mode.

    Args:
        source: a model directory, a `.pt` of the reference project, or a preset's name, which gives
            untrained weights drawn from `seed`.

    Raises:
        CheckpointError: it is none of these, is damaged, or holds weights that are not finite.
    """
    path = Path(source)
    if path.is_dir():
        model = _load_directory(path)
    elif path.is_file():
        model = _load_reference(path)
    elif str(source) in PRESETS:
        model = WorldModel(preset(str(source))).initialize(seed)
    else:
        raise CheckpointError(
            f"model {str(source)!r}: no such directory, file or preset; expected a model directory "
            f"({CONFIG_FILE} and {WEIGHTS_FILE}), a .pt of the reference project, "
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
    try:
        document = json.loads(read_document(path))
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory}: no {CONFIG_FILE}; expected a model directory with {CONFIG_FILE} "
            f"and {WEIGHTS_FILE}, as `wmdeploy train` writes it"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise CheckpointError(
            f"{path}: got schema {found}, expected {SCHEMA}; "
            "a newer wmdeploy wrote it: upgrade, or it is no model directory"
        )
    try:
        return WorldModelConfig.from_dict(document.get("config"))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def read_notes(source: str | Path) -> dict[str, Any]:
    """What a model directory notes on its origin, see `save_model`; {} where there are no notes."""
    path = Path(source) / CONFIG_FILE
    if not path.is_file():
        return {}
    read_config(path.parent)
    about = json.loads(read_document(path)).get("about")
    return about if isinstance(about, dict) else {}


def _load_directory(directory: Path) -> WorldModel:
    config = read_config(directory)
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{directory}: no {WEIGHTS_FILE}; the model directory is incomplete")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: damaged or no safetensors file ({error}); copy or train the model again"
        ) from error
    return _assemble(config, state, path)


def _load_reference(path: Path) -> WorldModel:
    """A checkpoint of the reference project: sizes come from the tensors."""
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: give the model directory that holds it, {path.parent}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong with the file is said below
            document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values, or is no checkpoint at all; it was "
            "not executed. Save it again as {'model_state_dict': model.state_dict()}"
        ) from error
    except Exception as error:  # arbitrary bytes make the unpickler fail in arbitrary ways
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: damaged or no PyTorch file ({first_line})") from error
    state = document.get("model_state_dict", document) if isinstance(document, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) and v.layout == torch.strided
        for k, v in state.items()
    ):
        raise CheckpointError(
            f"{path}: expected a dict with 'model_state_dict' (name -> dense tensor), "
            f"got {type(document).__name__}"
            + (f" with {', '.join(map(repr, list(document)[:6]))}" if _has_keys(document) else "")
        )
    try:
        config = infer_reference_config(state)
    except KeyError as error:
        raise CheckpointError(f"{path}: tensor {error} is missing; not a world model") from None
    state = dict(state)
    table = state.pop(REFERENCE_POSITIONS)
    table = (table[0] if len(table) else table).float()
    expected = sinusoidal_positions(config.temporal.context, config.temporal.d_model)
    # half of float16's spacing just below 1, so that a checkpoint saved in half precision loads too
    if table.shape != expected.shape or not torch.allclose(table, expected, rtol=0, atol=5e-4):
        raise CheckpointError(f"{path}: {REFERENCE_POSITIONS} is not the sinusoidal table")
    return _assemble(config, state, path)


def _has_keys(document: object) -> bool:
    return isinstance(document, dict) and bool(document)


def infer_reference_config(state: dict[str, Tensor]) -> WorldModelConfig:
    """Sizes of a reference checkpoint, read from its tensors' shapes.

    Raises:
        KeyError: a tensor that tells a size is missing.
        CheckpointError: a tensor has a shape that no world model has.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = tuple(state[name].shape)
        if len(found) != rank:
            raise CheckpointError(f'tensor "{name}": got shape {found}, expected {rank} dimensions')
        return found

    widths = [shape("vqvae.encoder.input_conv.weight", 4)[0]]
    halvings = sorted(
        (int(found[1]), name) for name in state if (found := REFERENCE_HALVING.fullmatch(name))
    )
    widths += [shape(name, 4)[0] for _, name in halvings]
    codebook_size, latent_channels = shape("vqvae.vq.embedding.weight", 2)
    d_model, latent_values = shape("temporal_model.latent_proj.weight", 2)
    if not latent_channels:
        raise CheckpointError('tensor "vqvae.vq.embedding.weight": got 0 channels, expected some')
    latent_size = math.isqrt(latent_values // latent_channels)
    layers = len([n for n in state if n.endswith(".self_attention.q_proj.weight")])
    actions = state.get("temporal_model.action_embedding.weight")
    return WorldModelConfig(
        VQVAEConfig(
            latent_size * 2 ** (len(widths) - 1), tuple(widths), latent_channels, codebook_size
        ),
        TemporalConfig(
            d_model,
            layers,
            REFERENCE_HEADS,
            context=shape(REFERENCE_POSITIONS, 3)[1],
            num_actions=0
            if actions is None
            else shape("temporal_model.action_embedding.weight", 2)[0],
        ),
    )


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
