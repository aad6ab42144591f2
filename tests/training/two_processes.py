"""Started by torchrun: each process takes its share of a batch, and the first saves the gradients.

torchrun --standalone --nproc-per-node 2 -m tests.training.two_processes DATA OUTPUT BATCH
"""

import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from tests.training.test_train import MICRO
from wmdeploy.families.reference.config import TemporalConfig, WorldModelConfig
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.training import TrainOptions
from wmdeploy.training.codes import encode_footage
from wmdeploy.training.data import find_data
from wmdeploy.training.loop import Share, Stage
from wmdeploy.training.processes import started
from wmdeploy.training.temporal_stage import TemporalStage
from wmdeploy.training.vqvae_stage import VQVAEStage


def main(data: Path, output: Path, batch: int) -> None:
    options = TrainOptions(
        data=(data,), output=output, vqvae_batch=2 * batch, temporal_batch=batch, device="cpu"
    )
    with started(options) as accelerator:
        found = gradients(accelerator, options)
        assert group_threads()  # torchrun makes a group of one, too
        if accelerator.is_main_process:
            torch.save(found, output)
    assert not group_threads()  # one that still works when Python shuts down aborts the process


def gradients(accelerator: Accelerator, options: TrainOptions) -> dict[str, Tensor]:
    """Of both stages, by name, and the codebook after its step."""
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
    clips = find_data(options.data, size=16, validation=0.2, seed=0, actions=True)
    coded = encode_footage(model.vqvae, clips.training)
    stages: list[Stage] = [
        VQVAEStage(model.vqvae, clips.training, clips.validation, options),
        TemporalStage(model, coded, coded, options),
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
    return found


def group_threads() -> list[str]:
    """Names of this process's threads that serve a gloo process group."""
    tasks = Path("/proc/self/task")
    names = [(tasks / task / "comm").read_text() for task in os.listdir(tasks)]
    return [name for name in names if "gloo" in name]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
