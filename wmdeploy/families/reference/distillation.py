"""A model and its student decoder: given together, saved together, and kept from being mixed up."""

import dataclasses
import hashlib

import torch
from torch import Tensor, nn

from wmdeploy.errors import CheckpointError
from wmdeploy.families.reference.config import student_config
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.world_model import WorldModel

OWN = "student."  # begins the names of a student's tensors


def with_student(model: WorldModel, name: str, seed: int) -> WorldModel:
    """A model with the same weights, and an untrained student in place of any that it has.

    Args:
        name: of the student's size, a key of `STUDENTS`.
        seed: of the student's weights.

    Raises:
        CheckpointError: there is no such size.
    """
    student = student_config(name, model.config.vqvae, weights_digest(model))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        taught = WorldModel(dataclasses.replace(model.config, student=student))
    taught.load_state_dict(full_weights(model), strict=False)
    return taught.eval().requires_grad_(False)


def full_weights(model: WorldModel) -> dict[str, Tensor]:
    """All tensors but a student's."""
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(OWN)}


def weights_digest(model: WorldModel) -> str:
    """Hex digest over all tensors of a model in float32, but a student's."""
    digest = hashlib.sha256()
    for name, tensor in sorted(full_weights(model).items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def check_student(model: nn.Module, source: str) -> None:
    """Refuse a student of other weights than those that stand beside it.

    Args:
        source: where the model is from, for a message.

    Raises:
        CheckpointError: it is of others.
    """
    model = reference_model(model)
    student = model.config.student
    if student is not None and student.model != (digest := weights_digest(model)):
        raise CheckpointError(
            f"{source}: its student decoder is of the weights {student.model[:12]}..., and the "
            f"model's are {digest[:12]}...; distil the model again"
        )
