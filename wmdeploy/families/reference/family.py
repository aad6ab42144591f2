"""The reference family: a VQ-VAE, and a causal transformer over its latents.

The published model and those that `wmdeploy train` makes are of it. Importing this module imports
no torch.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from wmdeploy.errors import CheckpointError, WmdeployError
from wmdeploy.families.family import Deployment, ModelFacts, ModelFamily
from wmdeploy.families.reference.config import PRESETS, WorldModelConfig
from wmdeploy.manifest import Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wmdeploy.codes import Ties
    from wmdeploy.families.reference.world_model import WorldModel
    from wmdeploy.training.plan import Distillation, Part, Training


class ReferenceFamily(ModelFamily):
    """See `wmdeploy.families.ModelFamily`."""

    name = "vqvae-transformer"
    title = "VQ-VAE and causal transformer"
    config = WorldModelConfig
    presets = PRESETS
    layouts = ("token", "latent")

    def build(self, config: WorldModelConfig) -> "WorldModel":
        from wmdeploy.families.reference.world_model import WorldModel

        return WorldModel(config)

    def initialized(self, config: WorldModelConfig, seed: int) -> "nn.Module":
        return self.build(config).initialize(seed).eval().requires_grad_(False)

    def constants(self, model: "WorldModel") -> None:
        from wmdeploy.families.reference.temporal import sinusoidal_positions

        sizes = model.config.temporal
        model.temporal_model.positions = sinusoidal_positions(sizes.context, sizes.d_model)

    def training(self) -> "Training":
        from wmdeploy.training.reference import ReferenceTraining

        return ReferenceTraining()

    def distillation(self, part: "Part") -> "Distillation":
        from wmdeploy.training.encoder_stage import EncoderDistillation
        from wmdeploy.training.student_stage import StudentDistillation

        return EncoderDistillation() if part == "encoder" else StudentDistillation()

    def convert(self, tensors: "dict[str, Tensor]") -> "tuple[Any, dict[str, Tensor]]":
        raise CheckpointError("checkpoints of this family need no conversion; export it as it is")

    def load(self, source: str, seed: int, remarks: list[str] | None) -> "nn.Module":
        from wmdeploy.families.reference.checkpoint import load_checkpoint

        return load_checkpoint(self, source, seed, remarks)

    def facts(self, model: "WorldModel") -> ModelFacts:
        from wmdeploy.families.reference.world_model import count_parameters

        return ModelFacts(
            image_size=model.config.vqvae.image_size,
            num_actions=model.config.temporal.num_actions,
            parameters={
                "all": count_parameters(model),
                "VQ-VAE": count_parameters(model.vqvae),
                "transformer": count_parameters(model.temporal_model),
            },
        )

    def deployment(self, model: "WorldModel", layout: str, precision: Precision) -> Deployment:
        from wmdeploy.families.reference.graphs import deployment

        return deployment(model, layout, precision)

    def baseline_deployment(self, model: "WorldModel", precision: Precision) -> Deployment:
        from wmdeploy.families.reference.graphs import baseline_deployment

        return baseline_deployment(model, precision)

    def find_ties(
        self,
        model: "WorldModel",
        frames: np.ndarray,
        expected: np.ndarray,
        got: np.ndarray,
        precision: Precision,
    ) -> "Ties":
        from wmdeploy.families.reference.ties import find_ties

        vqvae = model.vqvae
        return find_ties(
            vqvae.encoder, vqvae.vq, frames, expected=expected, got=got, precision=precision
        )

    def encoded_change(
        self, model: "WorldModel", before: np.ndarray, after: np.ndarray
    ) -> dict[str, np.ndarray]:
        import torch
        from torch.nn import functional as F

        vq = model.vqvae.vq
        after = np.where((after >= 0) & (after < len(vq.embedding.weight)), after, before)
        with torch.inference_mode():
            there, here = (
                vq.lookup(torch.tensor(codes[None], device=vq.embedding.weight.device))
                for codes in (after, before)
            )
            latent = (there - here).flatten(1)  # (1, L)
            token = F.linear(latent, model.temporal_model.latent_proj.weight)
        return {"token": token[0].cpu().numpy(), "latent": latent[0].cpu().numpy()}


def reference_model(model: "nn.Module") -> "WorldModel":
    """The same model, for what only this family has: scores of its latents, and its stages.

    Raises:
        WmdeployError: it is of another family.
    """
    from wmdeploy.families.reference.world_model import WorldModel

    if not isinstance(model, WorldModel):
        raise WmdeployError(
            f"model: got one of the family {model.family}, expected {ReferenceFamily.name}; "
            "scores of latents, milestones and a given VQ-VAE are of that family alone"
        )
    return model
