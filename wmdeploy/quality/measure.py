"""Evaluate a model on clips, beside what needs no model: the copied frame, the straight line.

    report = evaluate(model, footage, name="models/pong")

Sums up frame by frame with torchmetrics; knows files of clips only through `Footage`. Other ways to
run the same model join in as a `Runner`: the same contexts, the same actions, their frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from wmdeploy.clips.clip import check_actions
from wmdeploy.clips.footage import Footage
from wmdeploy.codes import CodeCount
from wmdeploy.families.reference.family import reference_model
from wmdeploy.families.reference.vqvae import VQVAE
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.contract import FULL
from wmdeploy.progress import Progress, silent
from wmdeploy.quality.predict import (
    decode_latents,
    encode_clip,
    following_latents,
    rollout_latents,
)
from wmdeploy.quality.report import HORIZONS, QualityReport
from wmdeploy.quality.tally import Tally

CHANGED_LEVELS = 16  # of 255: differences up to this are taken for noise
ROLLOUTS = 8  # for each clip, at most
PIECE_BYTES = 2**22  # of frames that are measured at once
CONTEXT = 8


class Runner(Protocol):
    """Something else that runs the model, such as a session on a bundle.

    It is given the model's codes of its frames, and goes on from these where its own tie with them.
    """

    name: str

    @property
    def codes(self) -> CodeCount:
        """Its codes beside the model's, of all frames so far."""

    def following(
        self, frames: Iterable[np.ndarray], codes: np.ndarray, actions: np.ndarray | None
    ) -> Iterator[np.ndarray]:
        """T frames (H, W, 3) uint8, codes (T, N) int -> T - 1 frames: each from the true ones
        before it."""

    def rollout(
        self, frames: np.ndarray, codes: np.ndarray, horizon: int, actions: np.ndarray | None
    ) -> np.ndarray:
        """A context (C, H, W, 3) uint8, codes (C, N) int64, actions (C + horizon - 1,) ->
        (horizon, H, W, 3) uint8."""


def evaluate(
    model: nn.Module,
    footage: Footage,
    *,
    name: str,
    runner: Runner | None = None,
    decoder: str = FULL,
    full: VQVAE | None = None,
    context: int = CONTEXT,
    skipped: Sequence[str] = (),
    progress: Progress = silent,
) -> QualityReport:
    """Evaluate a model in evaluation mode.

    Args:
        footage: of at least two frames each, with actions if the model is conditioned on them.
        name: what to call the model.
        runner: something else that runs it, compared on the same frames.
        decoder: where it is not the full one, the student's frames of the same predictions are
            compared, too: with real ones, by this name, and with the full decoder's.
        full: the VQ-VAE whose encoder the model's imitates: its codes, and predictions from them,
            are compared, too.
        context: frames given to a rollout, at most S.
        skipped: clips that were left out, for the report.

    Raises:
        ClipError: the model needs actions and there are none, or they are out of its range.
        WmdeployError: the model is of a family without scores.
    """
    model = reference_model(model)
    check_actions(footage.actions, model.config.temporal.num_actions, "data")
    tallies: dict[str, Tally] = {}
    everything = Tally(model.vqvae.vq)
    for index, group in enumerate(footage.groups):
        tally = tallies.setdefault(group, Tally(model.vqvae.vq))
        _measure_clip(
            model,
            footage,
            index=index,
            runner=runner,
            decoder=decoder,
            full=full,
            context=context,
            tallies=[tally, everything],
        )
        progress("evaluate", index + 1, len(footage.groups))
    groups = [tally.report(group) for group, tally in tallies.items()]
    return QualityReport(
        model=name,
        backend=None if runner is None else runner.name,
        context=context,
        decoder=decoder,
        codebook_size=model.config.vqvae.codebook_size,
        groups=(*groups, everything.report("all")),
        skipped=tuple(skipped),
        codes=None if runner is None else runner.codes,
    )


@torch.inference_mode()
def _measure_clip(
    model: WorldModel,
    footage: Footage,
    index: int,
    runner: Runner | None,
    decoder: str,
    full: VQVAE | None,
    context: int,
    tallies: Sequence[Tally],
) -> None:
    codes = encode_clip(model.vqvae, footage, index)  # (T, N)
    of_full = None if full is None else encode_clip(full, footage, index)
    taken = footage.clip_actions(index) if model.config.temporal.num_actions else None
    followed = (
        None if runner is None else runner.following(footage.iter_clip(index), codes.numpy(), taken)
    )
    for tally in tallies:
        tally.clips += 1
    piece = max(2, PIECE_BYTES // (3 * footage.size**2))
    for first in range(0, len(codes), piece):
        last = min(first + piece, len(codes))
        predictions = {}
        if runner is not None and followed is not None:
            predictions[runner.name] = np.stack(list(islice(followed, last - max(1, first))))
        _measure_piece(
            model,
            footage,
            index=index,
            piece=(first, last),
            codes=codes,
            of_full=of_full,
            taken=taken,
            predictions=predictions,
            decoder=decoder,
            tallies=tallies,
        )
    _measure_rollouts(
        model,
        footage,
        index=index,
        codes=codes,
        taken=taken,
        runner=runner,
        decoder=decoder,
        context=context,
        tallies=tallies,
    )


def _measure_piece(
    model: WorldModel,
    footage: Footage,
    index: int,
    piece: tuple[int, int],
    codes: Tensor,
    of_full: Tensor | None,
    taken: np.ndarray | None,
    predictions: dict[str, np.ndarray],
    decoder: str,
    tallies: Sequence[Tally],
) -> None:
    """Measure frames `first` to `last` of a clip, each predicted from those before it.

    Args:
        codes: (T, N) of the whole clip; of_full: likewise, by the full encoder.
        taken: (T,) actions of the whole clip, or None.
        predictions: other predictions of these frames; of the clip's first there is none.
    """
    first, last = piece
    before = min(first, 1)  # the frame before the piece, where there is one
    begin = max(0, first - max(2, model.config.temporal.context))
    device = model.vqvae.vq.embedding.weight.device
    frames = footage.clip(index, first - before, last)
    past = model.vqvae.vq.lookup(codes[begin:last].long().to(device)).flatten(1)
    latents = past[first - before - begin :]
    actions = None if taken is None else torch.from_numpy(taken[begin:last]).to(device)
    line = torch.cat([past[:1], 2 * past[1:-1] - past[:-2]])
    here = slice(first - before - begin, None)
    predicted, line = following_latents(model, past, actions)[here], line[here]
    decoded = decode_latents(model, latents[before:])
    following = {
        "model": decode_latents(model, predicted),
        "ceiling": decoded[1 - before :],
        "copy": frames[:-1],
        "linear": decode_latents(model, line),
        **predictions,
    }
    if decoder != FULL:
        following[decoder] = decode_latents(model, predicted, model.student)
        for tally in tallies:
            tally.against_full.add(following[decoder], following["model"])
    if of_full is not None:
        taught = model.vqvae.vq.lookup(of_full[begin:last].long().to(device)).flatten(1)
        following["full encoder"] = decode_latents(
            model, following_latents(model, taught, actions)[here]
        )
        span = slice(first - before, last)
        for tally in tallies:
            tally.agreement.add(codes[span], of_full[span], before)
    changed = changed_pixels(frames)
    whole = similarity(decoded, frames[before:])
    parts = {who: similarity(pictures, frames[1:]) for who, pictures in following.items()}
    codes = codes[first - before : last].long().to(device)
    for tally in tallies:
        tally.add_codes(frames, codes, latents, before)
        tally.reconstruction.add(decoded, frames[before:], changed[before:], whole)
        for who, pictures in following.items():
            tally.frame_sums(who).add(pictures, frames[1:], changed[1:], parts[who])
        guesses = {"model": predicted, "copy": latents[:-1], "linear": line}
        for who, guess in guesses.items():
            tally.latent_sums(who).add(guess, latents, codes)


def _measure_rollouts(
    model: WorldModel,
    footage: Footage,
    index: int,
    codes: Tensor,
    taken: np.ndarray | None,
    runner: Runner | None,
    decoder: str,
    context: int,
    tallies: Sequence[Tally],
) -> None:
    """Rollouts from places spread over the clip; none in a clip too short for one."""
    longest = max(HORIZONS)
    length = context + longest
    starts = rollout_starts(len(codes), length)
    if not len(starts):
        return
    windows = (starts[:, None] + np.arange(length)).flatten()  # one after the other
    device = model.vqvae.vq.embedding.weight.device
    latents = model.vqvae.vq.lookup(codes[windows].long().to(device)).flatten(1)
    actions = None if taken is None else torch.from_numpy(taken[windows]).to(device)
    begins = list(range(0, len(windows), length))
    imagined = rollout_latents(
        model, latents, starts=begins, context=context, horizon=longest, actions=actions
    )
    where = np.array(HORIZONS) - 1
    for start, begin, future in zip(starts.tolist(), begins, imagined, strict=True):
        frames = footage.clip(index, start, start + length)
        end = begin + context
        steps = torch.tensor(HORIZONS, device=latents.device)[:, None]
        straight = latents[end - 1] + steps * (latents[end - 1] - latents[end - 2])
        predictions = {
            "model": decode_latents(model, future[torch.from_numpy(where)]),
            "copy": np.broadcast_to(frames[context - 1], (len(where), *frames.shape[1:])),
            "linear": decode_latents(model, straight),
        }
        if decoder != FULL:
            shown = future[torch.from_numpy(where)]
            predictions[decoder] = decode_latents(model, shown, model.student)
        if runner is not None:
            given = None if taken is None else taken[start : start + length - 1]
            context_codes = codes[start : start + context].cpu().numpy()
            predictions[runner.name] = runner.rollout(
                frames[:context], context_codes, longest, given
            )[where]
        place = f"{footage.spans.names[index]} from frame {start} on"
        for tally in tallies:
            for who, pictures in predictions.items():
                tally.add_rollout(who, pictures, frames[context + where], place)


def rollout_starts(length: int, needed: int) -> np.ndarray:
    """First frames of rollouts, spread over a clip of `length` frames; none in one too short."""
    if length < needed:
        return np.zeros(0, int)
    return np.unique(np.linspace(0, length - needed, ROLLOUTS).astype(int))


def similarity(predictions: np.ndarray, true: np.ndarray) -> Tensor:
    """SSIM of each frame: (T, H, W, 3) uint8 twice -> (T,)."""
    left, right = (torch.tensor(part).permute(0, 3, 1, 2).float() for part in (predictions, true))
    parts = []
    for one, other in zip(left.split(32), right.split(32), strict=True):
        each = structural_similarity_index_measure(one, other, data_range=255.0, reduction="none")
        parts.append(torch.as_tensor(each).view(-1))
    return torch.cat(parts)


def changed_pixels(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) -> (T, H, W) bool: pixels that differ from the frame before; none in the 1st."""
    difference = np.abs(np.diff(frames.astype(np.int16), axis=0)).max(3) > CHANGED_LEVELS
    return np.concatenate([np.zeros_like(difference[:1]), difference])
