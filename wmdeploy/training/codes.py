"""Clips as codes, encoded once and kept on disk: all that the transformer is trained on.

N codes of two bytes for a frame: 128 bytes for `tiny`, 2 KB for `reference`. The file says what it
was made of, so that a stale one is made again; its own tensors are checked by their hash.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wmdeploy.clips.footage import Footage, Spans
from wmdeploy.families.reference.vqvae import VQVAE
from wmdeploy.files import check_inside, staged_file
from wmdeploy.progress import Progress, silent
from wmdeploy.quality.predict import encode_clip


@dataclass(frozen=True, eq=False)
class CodedFootage:
    """Some clips as codes (F, N) int16 or int32, and actions (F,) int64 or None."""

    spans: Spans
    codes: Tensor
    actions: Tensor | None


def encode_footage(vqvae: VQVAE, footage: Footage, progress: Progress = silent) -> CodedFootage:
    """Encode clip by clip; the parts of the progress are frames."""
    parts: list[Tensor] = []
    for index, start in enumerate(footage.spans.starts.tolist()):

        def count(frames: int, start: int = start) -> None:
            progress("encode", start + frames, len(footage))

        parts.append(encode_clip(vqvae, footage, index, count))
    actions = None if footage.actions is None else torch.from_numpy(footage.actions)
    return CodedFootage(footage.spans, torch.cat(parts), actions)


def origin(vqvae: VQVAE, clips_sha256: str) -> str:
    """What codes depend on, as one hex digest: the VQ-VAE's weights and the clips."""
    digest = hashlib.sha256(clips_sha256.encode())
    for name, tensor in vqvae.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def save_codes(coded: CodedFootage, path: Path, made_of: str) -> None:
    """Write the codes of some clips.

    Raises:
        WmdeployError: it cannot be written.
    """
    tensors = {"codes": coded.codes, "lengths": torch.tensor(coded.spans.lengths)}
    if coded.actions is not None:
        tensors["actions"] = coded.actions
    names = json.dumps(coded.spans.names)
    notes = {"made_of": made_of, "sha256": _digest(tensors, names), "names": names}
    check_inside(path, path.parent)
    with staged_file(path) as staged:
        try:
            save_file(tensors, staged, metadata=notes)
        except SafetensorError as error:  # its own type for a full disk
            raise OSError(None, str(error)) from error


def load_codes(path: Path, made_of: str) -> CodedFootage | None:
    """The codes in a file, or None where it is missing, damaged, or made of something else."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    names = notes.get("names", "")
    if notes.get("made_of") != made_of or notes.get("sha256") != _digest(tensors, names):
        return None
    spans = Spans(tuple(tensors["lengths"].tolist()), tuple(json.loads(names)))
    return CodedFootage(spans, tensors["codes"], tensors.get("actions"))


def _digest(tensors: dict[str, Tensor], names: str) -> str:
    digest = hashlib.sha256(names.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()
