"""The codebook while it is learned: EMA updates, revival of codes, and one code for one thing.

As van den Oord et al. 2017 (arXiv:1711.00937), section 3.2 and appendix A.1: the codebook gets no
gradient, each code moves to the running mean of the encoder outputs nearest to it. Codes that are
hardly used, or that say what another code says already, start again at an encoder output that is
badly served (random restarts as in Dhariwal et al. 2020, arXiv:2005.00341, appendix). Changes the
buffers of `VectorQuantizer`, nothing else. Where several processes train one model, all of them
see the outputs of all, and keep the same codebook.
"""

import torch
from accelerate.utils import broadcast, gather, reduce
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from wmdeploy.families.reference.vqvae import VectorQuantizer

DECAY = 0.99
COMMITMENT = 0.25
_DEAD_SHARE = 0.03  # of the use that a code would have if all were used alike
# of the mean squared error of quantising: of codes nearer than this, one is enough
_REDUNDANT_SHARE = 2.0  # while training; with twice as much, small reconstructs 1 dB worse
_SAME_SHARE = 4.0  # at the end
_REVIVED_SHARE = 0.2  # what a revived code starts with, so that it has time to gather its own


@torch.no_grad()
def start_codebook(vq: VectorQuantizer, z: Tensor) -> None:
    """Put the codes at encoder outputs, far from each other, drawn from torch's generator.

    Args:
        z: (B, C, h, w). With fewer than K outputs some codes are equal; they are revived later.
    """
    outputs = gather(_flat(z))
    chosen = _spread(outputs, len(vq.embedding.weight))
    vq.embedding.weight.copy_(chosen)
    vq.ema_cluster_size.fill_(len(outputs) / len(chosen))
    vq.ema_embed_avg.copy_(chosen * vq.ema_cluster_size[:, None])
    _share(vq)


@torch.no_grad()
def update_codebook(vq: VectorQuantizer, z: Tensor, codes: Tensor) -> None:
    """Move each code towards the mean of the outputs that chose it.

    Args:
        z: (B, C, h, w).
        codes: (B, N) int64, nearest to z.
    """
    outputs = _flat(z)
    # a product, not index_add_: its order of summation is fixed
    chosen = F.one_hot(codes.flatten(), len(vq.embedding.weight)).to(outputs.dtype)  # (B·N, K)
    vq.ema_cluster_size.lerp_(reduce(chosen.sum(0), "sum"), 1 - DECAY)
    vq.ema_embed_avg.lerp_(reduce(chosen.t() @ outputs, "sum"), 1 - DECAY)
    used = vq.ema_cluster_size.clamp(min=1e-5)
    vq.embedding.weight.copy_(vq.ema_embed_avg / used[:, None])


@torch.no_grad()
def revive_codes(vq: VectorQuantizer, z: Tensor, codes: Tensor) -> None:
    """Move codes that are hardly used, or redundant, to outputs, the likelier the worse served.

    Where nothing moves, encoder outputs lie so near to each other that many codes gather there. A
    frame's codes then flicker among them, and so they do between float32 and float16.
    Draws from torch's generator. Arguments as `update_codebook`.
    """
    outputs, codes = gather(_flat(z)), gather(codes)
    share = len(outputs) / len(vq.embedding.weight)
    badness = (outputs - vq.embedding(codes.flatten())).square().sum(1)
    same = _stand_ins(vq, _REDUNDANT_SHARE * float(badness.mean()))
    redundant = same != torch.arange(len(same), device=same.device)
    dead = (vq.ema_cluster_size < _DEAD_SHARE * share) | redundant
    count = min(int(dead.sum()), len(outputs))
    if count == 0:
        return
    slots = dead.nonzero().flatten()[:count]
    picked = outputs[_draw(badness, count)]
    vq.embedding.weight[slots] = picked
    vq.ema_cluster_size[slots] = _REVIVED_SHARE * share
    vq.ema_embed_avg[slots] = picked * _REVIVED_SHARE * share
    _share(vq)


@torch.no_grad()
def merge_codes(vq: VectorQuantizer, error: float) -> int:
    """Give codes that are nearly the same one vector, so that the first of them is always chosen.

    Args:
        error: the mean squared error of quantising, summed over channels.

    Returns:
        How many codes took another's vector.
    """
    same = _stand_ins(vq, _SAME_SHARE * error)
    vq.embedding.weight.copy_(vq.embedding.weight[same].clone())
    _share(vq)
    return int((same != torch.arange(len(same), device=same.device)).sum())


def _stand_ins(vq: VectorQuantizer, reach: float) -> Tensor:
    """For each code the most used one within a squared distance of `reach`, (K,); itself if none.

    A code that stands in for others keeps its own place.
    """
    weight = vq.embedding.weight.detach()
    near = torch.cdist(weight, weight).square() < reach  # (K, K)
    stand_in = torch.arange(len(weight), device=weight.device)
    taken = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    for code in vq.ema_cluster_size.argsort(descending=True).tolist():
        if not taken[code]:
            members = near[code] & ~taken
            stand_in[members] = code
            taken |= members
    return stand_in


def _spread(outputs: Tensor, count: int) -> Tensor:
    """(M, C) -> (count, C): the first drawn at random, each other by its squared distance to the
    nearest one so far (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = outputs[torch.randint(len(outputs), (1,), device=outputs.device)]
    nearest = (outputs - chosen).square().sum(1)
    for _ in range(count - 1):
        picked = outputs[_draw(nearest, 1)]
        nearest = torch.minimum(nearest, (outputs - picked).square().sum(1))
        chosen = torch.cat([chosen, picked])
    return chosen


def _draw(weights: Tensor, count: int) -> Tensor:
    """Indices, (M,) -> (count,), each the likelier the larger its weight; none twice."""
    return torch.multinomial(weights.clamp(1e-9, 1e30), count)  # a sum that overflows is refused


def _share(vq: VectorQuantizer) -> None:
    """What was drawn at random is what the first process drew."""
    for tensor in (vq.embedding.weight, vq.ema_cluster_size, vq.ema_embed_avg):
        tensor.copy_(broadcast(tensor.detach()))


def _flat(z: Tensor) -> Tensor:
    return rearrange(z.detach(), "b c h w -> (b h w) c")
