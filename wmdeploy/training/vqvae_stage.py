"""The first stage: the VQ-VAE learns to reconstruct frames, and where nothing moves, one code.

Trained on pairs of frames that follow each other: what moves between them counts more, and where
nothing moves both are given the first one's codes. Without that, codes flicker among neighbours,
and neither a transformer nor float16 can tell which one comes next. Neither saves nor prints.
"""

from collections.abc import Iterator

import numpy as np
import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from wmdeploy.clips.footage import Footage
from wmdeploy.families.reference.vqvae import VQVAE, AttentionBlock, ResidualBlock
from wmdeploy.families.reference.world_model import to_signal
from wmdeploy.training.codebook import (
    COMMITMENT,
    merge_codes,
    revive_codes,
    start_codebook,
    update_codebook,
)
from wmdeploy.training.loop import Batch, Share, shared_mean
from wmdeploy.training.optimizer import muon_and_adamw
from wmdeploy.training.options import TrainOptions
from wmdeploy.training.windows import WindowStage, spread

CHANGED_LEVELS = 16  # of 255: differences up to this are taken for noise
CONTINUOUS_SHARE = 0.15  # of the stage: first the codebook is left out, then it is learned
REVIVAL_EVERY = 10
REVIVAL_UNTIL = 0.8  # of the stage; then codes settle
VALIDATION_PAIRS = 64


class VQVAELoss(nn.Module):
    """Reconstruction, L2 and a share of L1, with most weight on what moves; and the codebook.

    In the first steps latents are not quantised, so that the codebook starts at outputs of an
    encoder that has learned something.
    """

    def __init__(self, vqvae: VQVAE, options: TrainOptions) -> None:
        super().__init__()
        self.vqvae = vqvae
        self.changed_weight = options.changed_pixels
        self.l1_share = options.l1
        self.done = 0.0  # of the stage
        self.step = 0
        self.started = False  # the codebook

    def forward(self, frames: Tensor, changed: Tensor, static: Tensor) -> Tensor:
        """A scalar.

        Args:
            frames: (2B, H, W, 3) uint8, first the B frames, then those that follow them.
            changed: (B, H, W) bool, pixels that differ by more than noise.
            static: (B, N) bool, latent positions in whose pixels nothing at all differs.
        """
        target = to_signal(frames)  # (2B, 3, H, W) in [-1, 1]
        z = self.vqvae.encoder(target).float()
        commitment = z.new_zeros(())
        # with NaN there is nothing to draw codes by; it goes on to the loss, which is then refused
        if self.done >= CONTINUOUS_SHARE and shared_mean(z.isfinite().all()) == 1:
            z, commitment = self._quantised(z, static)
        error = self.vqvae.decoder(z).float() - target
        weight = 1 + self.changed_weight * changed.repeat(2, 1, 1).unsqueeze(1).float()
        each = error.square() + self.l1_share * error.abs()
        return (each * weight).sum() / (3 * shared_mean(weight.sum())) + commitment

    def _quantised(self, z: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        vq = self.vqvae.vq
        with torch.autocast(z.device.type, enabled=False):
            if self.training and not self.started:
                start_codebook(vq, z)
                self.started = True
            codes = vq.nearest(z.detach())
            before, after = codes.chunk(2)
            codes = torch.cat([before, torch.where(static, before, after)])
            chosen = vq.lookup(codes).detach()
            if self.training:
                update_codebook(vq, z, codes)
                if self.step % REVIVAL_EVERY == 0 and self.done < REVIVAL_UNTIL:
                    revive_codes(vq, z, codes)
        # the gradient of the identity (van den Oord et al. 2017, section 3.2)
        return z + (chosen - z).detach(), COMMITMENT * F.mse_loss(z, chosen)


class VQVAEStage(WindowStage):
    """See the module's docstring, and `wmdeploy.training.loop.Stage`."""

    name = "vqvae"
    kinds = (ResidualBlock, AttentionBlock)

    def __init__(
        self, vqvae: VQVAE, training: Footage, validation: Footage, options: TrainOptions
    ) -> None:
        self.steps = options.vqvae_steps
        self.rate = options.vqvae_rate
        self.module = VQVAELoss(vqvae, options)
        self._footage = training
        super().__init__(training.spans, 2, max(1, options.vqvae_batch // 2), (options.seed, 0))
        parts = spread(validation.spans.windows(2), VALIDATION_PAIRS, 8)
        self._held_out = [frame_pairs(validation, part, vqvae.config.latent_size) for part in parts]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Encoder and decoder; the codebook moves by its running means."""
        yield from self.module.vqvae.encoder.parameters()
        yield from self.module.vqvae.decoder.parameters()

    def optimizers(self) -> list[Optimizer]:
        return muon_and_adamw(self.parameters(), self.rate)

    def batch(self, step: int, share: Share) -> Batch:
        pairs = self.numbers(step, share)
        return frame_pairs(self._footage, pairs, self.module.vqvae.config.latent_size)

    def held_out(self) -> list[Batch]:
        """Batches to judge the model by; none before the codebook is in use."""
        return self._held_out if self.module.done >= CONTINUOUS_SHARE else []

    def figures(self) -> dict[str, float]:
        """How many codes are in use, and their perplexity: exp of the entropy of their use."""
        uses = self.module.vqvae.vq.ema_cluster_size
        shares = uses[uses > 0] / uses.sum()
        perplexity = torch.exp(-(shares * shares.log()).sum()).item()
        return {"perplexity": perplexity, "codes_used": float((shares > 1e-4).sum())}

    def resume(self, done: float) -> None:
        """Whether the codebook has been started is seen from its use, which is zero before."""
        self.module.started = bool(self.module.vqvae.vq.ema_cluster_size.any())

    @torch.no_grad()
    def finish(self) -> None:
        """Give codes that say the same one vector."""
        vqvae = self.module.vqvae
        error, count = 0.0, 0
        for batch in self._held_out:
            z = vqvae.encoder(to_signal(batch["frames"].to(vqvae.vq.embedding.weight.device)))
            nearest = vqvae.vq.lookup(vqvae.vq.nearest(z))
            error += (z - nearest).square().sum(1).mean().item() * len(z)
            count += len(z)
        merge_codes(vqvae.vq, error / count)


def frame_pairs(footage: Footage, firsts: np.ndarray, latent_size: int) -> Batch:
    """Pairs of frames that begin at `firsts` (B,), as `VQVAELoss` takes them."""
    numbers, _ = footage.spans.window_frames(firsts, 2)
    before, after = footage.frames(numbers[:, 0]), footage.frames(numbers[:, 1])
    difference = np.abs(before.astype(np.int16) - after).max(3)  # (B, H, W)
    side = footage.size // latent_size
    moved = reduce(difference, "b (h p) (w q) -> b (h w)", "max", p=side, q=side) > 0
    return {
        "frames": torch.from_numpy(np.concatenate([before, after])),
        "changed": torch.from_numpy(difference > CHANGED_LEVELS),
        "static": torch.from_numpy(~moved),
    }
