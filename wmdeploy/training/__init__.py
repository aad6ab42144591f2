"""Training: clips to a world model, first the VQ-VAE, then the transformer on its frozen latents.

Importing this package loads no PyTorch; `wmdeploy.training.train` does.

    from wmdeploy.training.train import train

    options = TrainOptions(data=(Path("pong"),), output=Path("pong-model"))
    summary = train(options, lambda stage, step, total, loss: None)
"""

from wmdeploy.training.options import TrainOptions
from wmdeploy.training.summary import StageSummary, TrainSummary

__all__ = ["StageSummary", "TrainOptions", "TrainSummary"]
