"""Which graph brings the error in: one graph at a time is a backend's, the others are PyTorch's.

All in one process, with float32 modules of the bundle's own graphs as what is compared with.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from wmdeploy.benchmarks.parity.metrics import frame_errors
from wmdeploy.benchmarks.protocol import Substituted
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.bundle import Bundle
from wmdeploy.engines.pytorch.eager import bundled_model
from wmdeploy.engines.same_codes import SameCodesEncoder, TieFinder
from wmdeploy.families import family_of
from wmdeploy.families.precision import exact_float32
from wmdeploy.programs.arrays import NUMPY
from wmdeploy.programs.contract import FULL
from wmdeploy.programs.engine import Backend, Engine
from wmdeploy.programs.host_engine import HostEngine
from wmdeploy.programs.modules import ModuleEngine, module_backend
from wmdeploy.programs.session import Session
from wmdeploy.psnr import psnr

Clip = tuple[np.ndarray, np.ndarray | None]


class ExactEngine(ModuleEngine):
    """A module in float32 without TF32, whatever the backend beside it may use."""

    def run(
        self, feeds: Mapping[str, Tensor], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        with exact_float32():
            return super().run(feeds, into)


def substitute_graphs(
    backend: Backend,
    bundle: Bundle,
    clip: Clip,
    context: int,
    frames: int,
    refill: int | None = None,
    decoder: str = FULL,
) -> Substituted:
    """The worst frame of a rollout for each graph that is the backend's.

    Its codes are PyTorch's where they tie.

    Raises:
        BundleError, BackendError: as the engines say.
    """
    if backend.programs != bundle.manifest.programs:
        return Substituted({}, "runs graphs of its own, which fit none of the bundle's")
    model = bundled_model(bundle)
    pytorch = pytorch_backend(model, bundle, backend, decoder)
    programs = pytorch.programs
    exact: dict[str, Engine] = {
        name: HostEngine(engine, pytorch.arrays) for name, engine in pytorch.engines.items()
    }

    def rollout(engines: Mapping[str, Engine]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Frames, and what encoding gave of the context."""
        tried = dataclasses.replace(pytorch, engines=engines, arrays=NUMPY)
        there = Rollout(Session(tried, refill=refill), *clip, context)
        encoded = there.reset()
        return np.concatenate([there.step() for _ in range(frames)]), encoded

    expected, encoded = rollout(exact)
    worst = {}
    for name in programs.graphs():
        engine: Engine = HostEngine(backend.engines[name], backend.arrays, exact[name])
        if name == programs.frame_input()[0] and programs.codes_output():
            ties = TieFinder(model, backend.precision)
            ties.expect(clip[0][:context], encoded["codes"])
            engine = SameCodesEncoder(engine, programs, NUMPY, ties)
        got, _ = rollout({**exact, name: engine})
        worst[name] = psnr(float(frame_errors(got, expected).max()))
    return Substituted(worst)


def pytorch_backend(
    model: nn.Module, bundle: Bundle, backend: Backend, decoder: str = FULL
) -> Backend:
    """The bundle's own graphs in float32 PyTorch, where the backend is."""
    deployed = family_of(model).deployment(model, bundle.manifest.recipe.layout, "fp32")
    deployed = deployed.with_decoder(decoder)
    device = torch.device(backend.device)
    return module_backend(
        deployed, name="pytorch", device=device, encode_batch=1, engine=ExactEngine
    )
