"""A model and its students: made together, and a decoder kept from being mixed up with others."""

import dataclasses
import hashlib

import torch
from torch import Tensor, nn

from wmdeploy.errors import CheckpointError
from wmdeploy.families.reference.config import WorldModelConfig, check_size, student_config
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.world_model import WorldModel

OWN = "student."  # begins the names of a student decoder's tensors
ENCODER = "vqvae.encoder."


def with_student(model: WorldModel, name: str, seed: int) -> WorldModel:
    """A model with the same weights, and an untrained student in place of any that it has.

    Args:
        name: of the student's size, a key of `STUDENTS`.
        seed: of the student's weights.

    Raises:
        CheckpointError: there is no such size.
    """
    student = student_config(name, model.config.vqvae, decoded_digest(model))
    config = dataclasses.replace(model.config, student=student)
    return _rebuilt(config, model, OWN, seed)


def with_encoder(model: WorldModel, name: str, seed: int) -> WorldModel:
    """A model with the same weights, but for an untrained student in the encoder's place.

    A student decoder of the model stays.

    Args:
        name: of the student's size, a key of `STUDENTS`.
        seed: of the student's weights.

    Raises:
        CheckpointError: there is no such size, or the model's encoder is a student already.
    """
    check_size("encoder", name)
    if model.config.vqvae.encoder is not None:
        raise CheckpointError(
            f"model: its encoder is the student {model.config.vqvae.encoder}; give the model that "
            "it was distilled from"
        )
    vqvae = dataclasses.replace(model.config.vqvae, encoder=name)
    return _rebuilt(dataclasses.replace(model.config, vqvae=vqvae), model, ENCODER, seed)


def _rebuilt(config: WorldModelConfig, model: WorldModel, new: str, seed: int) -> WorldModel:
    """A model of this config with another's weights; those whose names begin so are drawn."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        taught = WorldModel(config)
    drawn = {name: value for name, value in taught.state_dict().items() if name.startswith(new)}
    taught.load_state_dict({**_without(model, new), **drawn})
    return taught.eval().requires_grad_(False)


def decoded_digest(model: WorldModel) -> str:
    """Hex digest over the tensors that say what a student decoder imitates: all but the encoder."""
    return _digest(_without(model, OWN, ENCODER))


def weights_digest(model: WorldModel) -> str:
    """Hex digest over all tensors of a model in float32, but a student decoder's."""
    return _digest(_without(model, OWN))


def _without(model: WorldModel, *beginnings: str) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(beginnings)}


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
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
    if student is not None and student.model != (digest := decoded_digest(model)):
        raise CheckpointError(
            f"{source}: its student decoder is of the weights {student.model[:12]}..., and the "
            f"model's are {digest[:12]}...; distil the model again"
        )
