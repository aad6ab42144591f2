"""Accelerate, set up for a training's device and precision, and taken down again."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

# Its default arguments are the process group there is when it is first imported, and keep it for
# ever; DistributedDataParallel imports it. So it is imported before there is one.
import torch.distributed.nn.functional
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from wmdeploy.errors import TrainingError
from wmdeploy.training.options import TrainOptions


@contextmanager
def started(options: TrainOptions) -> Iterator[Accelerator]:
    """This process among those that train together; alone where nothing started several.

    At the end nothing may hold what `prepare` returned: the process group's threads stop with its
    last owner. One that lets go of a tensor while Python shuts down would abort the process
    (pytorch/pytorch#179291), and torchrun would then stop the others, the one that writes the
    model among them. After an error its traceback still holds them; that process fails anyway.

    Raises:
        TrainingError: the machine has no GPU, or its precision is not one of a CPU's.
    """
    on_gpu = torch.cuda.is_available()
    if options.device == "cuda" and not on_gpu:
        raise TrainingError("device: got cuda, and torch finds no GPU; choose the device cpu")
    on_gpu = on_gpu and options.device != "cpu"
    if options.precision == "fp16" and not on_gpu:
        raise TrainingError("precision: fp16 needs a GPU; expected fp32 or bf16 on a CPU")
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=not on_gpu,
        # the others wait while the first one encodes the clips
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
        mixed_precision={"fp32": "no"}.get(options.precision, options.precision),
        gradient_accumulation_steps=options.accumulate,
    )
    try:
        yield accelerator
    finally:
        accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)
