"""Models whose codes tie at one place, and bundles of them whose encoder chooses the other code."""

import copy
import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from tests.planted import planted
from wmdeploy.bundle import MODEL_DIRECTORY, Bundle, describe_files
from wmdeploy.codes import CodeCount
from wmdeploy.families import save_model
from wmdeploy.families.reference.ties import find_ties
from wmdeploy.families.reference.world_model import WorldModel, to_signal
from wmdeploy.manifest import Precision, write_manifest

PLACE = 5  # of a frame's codes
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)  # no two alike


@dataclass(frozen=True)
class Tied:
    """A model, and what it chooses at `PLACE` of a frame, beside a code that is further off by
    `excess` (relative)."""

    model: WorldModel
    chosen: int
    other: int
    excess: float
    squared: float  # distance of what is chosen
    codebook: np.ndarray  # (K, C), before the other vector was moved


def tied_model(model: WorldModel, frame: np.ndarray, excess: float) -> Tied:
    """A copy in which an unused vector lies as far from the latent as the one that is chosen."""
    model = copy.deepcopy(model)
    vq = model.vqvae.vq
    with torch.inference_mode():
        latent = model.vqvae.encoder(to_signal(torch.tensor(frame[None])))
        codes = vq.nearest(latent)[0]
    other = next(i for i in range(len(vq.embedding.weight)) if i not in codes)
    chosen = int(codes[PLACE])
    z = latent[0].flatten(1).T[PLACE].double()
    squared = float((z - vq.embedding.weight[chosen].double()).square().sum())
    before = vq.embedding.weight.detach().numpy().copy()
    direction = torch.randn(len(z), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    radius = (squared * (1 + excess)) ** 0.5
    vq.embedding.weight.data[other] = (z + radius * direction / direction.norm()).float()
    return Tied(
        model=model, chosen=chosen, other=other, excess=excess, squared=squared, codebook=before
    )


def counted(tied: Tied, frame: np.ndarray, precision: Precision = "fp32") -> CodeCount:
    """What is said of a backend that chooses the other code at `PLACE`."""
    expected = tied.model.encode(torch.tensor(frame)[None, None])[1][0].numpy()
    expected[0, PLACE] = tied.chosen
    got = expected.copy()
    got[0, PLACE] = tied.other
    vqvae = tied.model.vqvae
    return find_ties(vqvae.encoder, vqvae.vq, frame[None], expected, got, precision).count


def rounding(model: WorldModel, frame: np.ndarray, precision: Precision = "fp32") -> float:
    """The excess that is still a tie at `PLACE`, relative."""
    return counted(tied_model(model, frame, 0), frame, precision).rounding


def tied_bundle(tied: Tied, intact: Bundle, target: Path) -> Bundle:
    """A bundle of the model, whose encoder takes the other code for nearer by as much as it is
    further off.

    Args:
        intact: of the model from which the tied one was made: only its codebook is another.
    """
    bundle = planted(intact, "encoder", target, lambda model: prefer(model, tied))
    shutil.rmtree(target / MODEL_DIRECTORY)
    save_model(tied.model, target / MODEL_DIRECTORY)
    write_manifest(dataclasses.replace(bundle.manifest, files=describe_files(target)), target)
    return Bundle.open(target)


def prefer(model: onnx.ModelProto, tied: Tied) -> None:
    """Take 2 · excess off each distance of the other code, whose vector is the tied model's."""
    codebook = tied.model.vqvae.vq.embedding.weight.detach().numpy()
    replace_codebook(model, tied.codebook, codebook)
    nodes = model.graph.node
    argmin = next(i for i, node in enumerate(nodes) if node.op_type == "ArgMin")
    shift = np.zeros(len(codebook), np.float32)
    shift[tied.other] = -2 * tied.excess * tied.squared
    model.graph.initializer.append(onnx.numpy_helper.from_array(shift, "planted/shift"))
    given = nodes[argmin].input[0]
    nodes.insert(argmin, onnx.helper.make_node("Add", [given, "planted/shift"], ["planted"]))
    nodes[argmin + 1].input[0] = "planted"


def replace_codebook(model: onnx.ModelProto, old: np.ndarray, new: np.ndarray) -> None:
    """Also where an export keeps what was computed of the codebook."""
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        for before, after in ((old, new), (old.T, new.T), (norms(old), norms(new))):
            if array.shape == before.shape and np.allclose(array, before, rtol=1e-5):
                tensor.CopyFrom(onnx.numpy_helper.from_array(after, tensor.name))


def norms(codebook: np.ndarray) -> np.ndarray:
    return np.square(codebook).sum(1)
