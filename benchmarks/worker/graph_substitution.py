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
from wmdeploy.engines.base import Backend, Engine, Tenancy
from wmdeploy.engines.pytorch.eager import ModuleEngine, bundled_model
from wmdeploy.engines.same_codes import SameCodesEncoder, TieFinder
from wmdeploy.engines.session import Session
from wmdeploy.families import GRAPHS, family_of
from wmdeploy.models.precision import exact_float32
from wmdeploy.psnr import psnr

Clip = tuple[np.ndarray, np.ndarray | None]


class ExactEngine(ModuleEngine):
    """A module in float32 without TF32, whatever the backend beside it may use."""

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with exact_float32():
            return super().run(feeds)


class CastEngine:
    """A backend's engine behind the signature of another one: floats are cast at its borders."""

    def __init__(self, inner: Engine, outside: Engine) -> None:
        self.name, self.inputs, self.outputs = inner.name, outside.inputs, outside.outputs
        self._inner = inner

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = {
            spec.name: feeds[spec.name].to(getattr(torch, spec.dtype))
            for spec in self._inner.inputs
        }
        made = self._inner.run(given)
        return {
            spec.name: made[spec.name].to(getattr(torch, spec.dtype), copy=True)
            for spec in self.outputs
        }

    def synchronize(self) -> None:
        self._inner.synchronize()

    def close(self) -> None:
        """The inner engine is its backend's to close."""


def substitute_graphs(
    backend: Backend,
    bundle: Bundle,
    clip: Clip,
    context: int,
    frames: int,
    refill: int | None = None,
) -> Substituted:
    """The worst frame of a rollout for each graph that is the backend's.

    Its encoder's codes are PyTorch's where they tie.

    Raises:
        BundleError, BackendError: as the engines say.
    """
    if backend.wiring != bundle.manifest.wiring:
        return Substituted({}, "runs graphs of its own, which fit none of the bundle's")
    model = bundled_model(bundle)
    exact = pytorch_backend(model, bundle, backend)

    def rollout(engines: Mapping[str, Engine]) -> np.ndarray:
        tried = dataclasses.replace(exact, engines=engines, tenancy=Tenancy())
        there = Rollout(Session(tried, refill=refill), *clip, context)
        there.reset()
        return np.concatenate([there.step() for _ in range(frames)])

    expected = rollout(exact.engines)
    worst = {}
    ties = TieFinder(model, backend.precision)
    ties.expect(clip[0][:context], _codes(exact, clip[0][:context]))
    for name in GRAPHS:
        engine: Engine = CastEngine(backend.engines[name], exact.engines[name])
        if name == "encoder":
            engine = SameCodesEncoder(engine, exact.wiring, ties)
        got = rollout({**exact.engines, name: engine})
        worst[name] = psnr(float(frame_errors(got, expected).max()))
    return Substituted(worst)


def _codes(exact: Backend, frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T, N) int64."""
    encoder, wiring = exact.engines["encoder"], exact.wiring
    each = (torch.tensor(frame[None], device=exact.device) for frame in frames)
    return np.concatenate([encoder.run({wiring.frames: f})[wiring.codes].cpu() for f in each])


def pytorch_backend(model: nn.Module, bundle: Bundle, backend: Backend) -> Backend:
    """The bundle's own graphs in float32 PyTorch, where the backend is."""
    recipe = bundle.manifest.recipe
    deployed = family_of(model).deployment(model, recipe.layout, "fp32")
    engines: dict[str, Engine] = {}
    # all are built before any is moved: they share the model's weights
    for name, graph in [(name, build()) for name, build in deployed.graphs.items()]:
        graph.module.to(backend.device)
        engines[name] = ExactEngine(name, graph, backend.device)
    return Backend(
        name="pytorch",
        precision="fp32",
        device=backend.device,
        engines=engines,
        wiring=deployed.wiring,
        encode_batch=1,
    )
