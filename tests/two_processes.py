"""Started by torchrun: each process takes its share of a batch, and the first saves the gradients.

torchrun --standalone --nproc-per-node 2 -m tests.two_processes DATA OUTPUT BATCH
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from tests.test_training import MICRO
from wmdeploy.models.config import TemporalConfig, WorldModelConfig
from wmdeploy.models.world_model import WorldModel
from wmdeploy.training import TrainOptions
from wmdeploy.training.codes import encode_footage
from wmdeploy.training.data import find_data
from wmdeploy.training.loop import Share, Stage
from wmdeploy.training.temporal_stage import TemporalStage
from wmdeploy.training.vqvae_stage import VQVAEStage


def main(data: Path, output: Path, batch: int) -> None:
    accelerator = Accelerator(cpu=True)
    share = Share(accelerator.process_index, accelerator.num_processes)
    config = WorldModelConfig(
        MICRO.vqvae,
        TemporalConfig(d_model=32, layers=1, heads=2, context=6, num_actions=2, dropout=0),
    )
    model = WorldModel(config).initialize(0)
    vq = model.vqvae.vq
    vq.requires_grad_(False)
    vq.ema_cluster_size.fill_(1)  # a codebook in use, so that none is drawn
    vq.ema_embed_avg.copy_(vq.embedding.weight)
    chosen = TrainOptions(
        (data,), output, vqvae_batch=2 * batch, temporal_batch=batch, codes=0.5, cosine=0.5,
        difference=0.5, changed_codes=3,
    )  # fmt: skip
    clips = find_data([data], size=16, validation=0.2, seed=0, actions=True)
    coded = encode_footage(model.vqvae, clips.training, lambda done, total: None)
    stages: list[Stage] = [
        VQVAEStage(model.vqvae, clips.training, clips.validation, chosen),
        TemporalStage(model, coded, coded, chosen),
    ]
    found = {}
    for stage, done in zip(stages, (0.5, 0.0), strict=True):  # with the codebook; not self-fed
        stage.resume(done)
        stage.module.done, stage.module.step = done, 1
        module = accelerator.prepare(stage.module.train())
        accelerator.backward(module(**stage.batch(3, share)))
        for index, parameter in enumerate(stage.parameters()):
            assert parameter.grad is not None
            found[f"{stage.name} {index}"] = parameter.grad
    found["codebook"] = vq.embedding.weight
    found["uses"] = vq.ema_cluster_size
    if accelerator.is_main_process:
        torch.save(found, output)
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
