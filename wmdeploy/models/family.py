"""The reference family: a VQ-VAE, and a causal transformer over its latents.

The published model and those that `wmdeploy train` makes are of it. Importing this module imports
no torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wmdeploy.errors import WmdeployError
from wmdeploy.families import Deployment, ModelFacts, ModelFamily, family_of
from wmdeploy.manifest import Layout, Precision
from wmdeploy.models.config import PRESETS, WorldModelConfig

if TYPE_CHECKING:
    from torch import nn

    from wmdeploy.codes import Ties
    from wmdeploy.models.world_model import WorldModel


class ReferenceFamily(ModelFamily):
    """See `wmdeploy.families.ModelFamily`."""

    name = "vqvae-transformer"
    title = "VQ-VAE and causal transformer"
    presets = tuple(PRESETS)

    def recognises(self, source: str) -> bool:
        """Anything: it is the last family to be asked, and `load` says what is wrong."""
        return True

    def load(self, source: str, seed: int, remarks: list[str] | None) -> "WorldModel":
        from wmdeploy.models.checkpoint import load_model

        return load_model(source, seed, remarks)

    def build(self, config: dict[str, Any]) -> "WorldModel":
        from wmdeploy.models.world_model import WorldModel

        return WorldModel(WorldModelConfig.from_dict(config)).eval().requires_grad_(False)

    def save(self, model: "WorldModel", directory: Path, notes: dict[str, Any]) -> None:
        from wmdeploy.models.checkpoint import write_model_files

        write_model_files(model, directory, notes)

    def notes(self, source: str) -> dict[str, Any]:
        from wmdeploy.models.checkpoint import read_notes

        return read_notes(source)

    def facts(self, model: "WorldModel") -> ModelFacts:
        from wmdeploy.models.world_model import count_parameters

        return ModelFacts(
            image_size=model.config.vqvae.image_size,
            num_actions=model.config.temporal.num_actions,
            config=model.config.to_dict(),
            parameters={
                "all": count_parameters(model),
                "VQ-VAE": count_parameters(model.vqvae),
                "transformer": count_parameters(model.temporal_model),
            },
        )

    def deployment(self, model: "WorldModel", layout: Layout, precision: Precision) -> Deployment:
        from wmdeploy.models.graphs import deployment

        return deployment(model, layout, precision)

    def baseline_deployment(self, model: "WorldModel", precision: Precision) -> Deployment:
        from wmdeploy.models.graphs import baseline_deployment

        return baseline_deployment(model, precision)

    def find_ties(
        self,
        model: "WorldModel",
        frames: np.ndarray,
        expected: np.ndarray,
        got: np.ndarray,
        precision: Precision,
    ) -> "Ties":
        from wmdeploy.models.ties import find_ties

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


FAMILY = ReferenceFamily()


def reference_model(model: "nn.Module") -> "WorldModel":
    """The same model, for what only this family has: training, and scores of its latents.

    Raises:
        WmdeployError: it is of another family.
    """
    from wmdeploy.models.world_model import WorldModel

    if not isinstance(model, WorldModel):
        raise WmdeployError(
            f"model: got one of the family {family_of(model).name}, expected {FAMILY.name}; "
            "training, scores and milestones are of that family alone"
        )
    return model
