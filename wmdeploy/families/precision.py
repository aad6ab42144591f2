"""How exactly a GPU computes float32: TF32 keeps 10 of the 23 bits of each factor of a product."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def allow_tf32(allowed: bool) -> None:
    """Whether float32 products and convolutions on a GPU may use TF32, in this process.

    torch's own default is no for products and yes for convolutions.
    """
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 in this block, as a reference needs it, whatever else the process may use.

    Also a decorator.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
