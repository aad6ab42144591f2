"""Training: clips to a world model, stage by stage, as its family says.

Importing this package loads no PyTorch; `wmdeploy.training.train` does.

    from wmdeploy.training.train import train

    options = TrainOptions(data=(Path("pong"),), output=Path("pong-model"))
    summary = train(options, lambda stage, step, total, loss: None)
"""

from wmdeploy.training.options import TrainOptions
from wmdeploy.training.summary import StageSummary, TrainSummary

__all__ = ["StageSummary", "TrainOptions", "TrainSummary"]
