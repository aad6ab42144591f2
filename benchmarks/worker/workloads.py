"""What is timed in a worker: each engine alone, and whole steps of a session."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wmdeploy.benchmarks.stages import GRAPH_STAGES, STAGES, StageName
from wmdeploy.benchmarks.worker.rollouts import Rollout
from wmdeploy.benchmarks.worker.timing import Workload
from wmdeploy.engines.base import Backend, Engine
from wmdeploy.engines.static import feedback_of
from wmdeploy.manifest import Wiring

Feeds = dict[str, dict[str, Tensor]]


def stage_names(backend: Backend) -> list[StageName]:
    """What a backend has at batch 1."""
    on_gpu = backend.device.type == "cuda"
    return [
        stage.name
        for stage in STAGES.values()
        if stage.graph or stage.session or (stage.name == "download" and on_gpu)
    ]


def engine_stage(backend: Backend, feeds: Feeds, name: StageName) -> Workload:
    """An engine at batch 1 with a full window, or the way of its frame to the host."""
    on_gpu = backend.device.type == "cuda"
    if name == "download":
        decoder = backend.engines["decoder"]
        pixels = decoder.run(feeds["decoder"])[backend.wiring.frame]
        return Workload(pixels.cpu, decoder.synchronize, on_gpu=on_gpu)
    # without a step graph, as in the baseline, a step is the whole window once more
    graph = GRAPH_STAGES[name] if GRAPH_STAGES[name] in backend.engines else "prefill"
    engine = backend.engines[graph]
    run = running(engine, dict(feeds[graph]), backend.wiring)
    return Workload(run, engine.synchronize, on_gpu=on_gpu)


@torch.inference_mode()  # as the session's tensors: torch.compile compiles again for others
def engine_feeds(backend: Backend, frames: np.ndarray) -> Feeds:
    """By graph: what the graphs before it gave for the clip's first frame."""
    engines, wiring = backend.engines, backend.wiring
    pixels = torch.tensor(frames[:1], device=backend.device)
    encoded = engines["encoder"].run({wiring.frames: pixels})[wiring.encoded].clone()
    feeds: Feeds = {"encoder": {wiring.frames: pixels}}
    feeds["prefill"] = {
        wiring.window: encoded[:, None].repeat_interleave(wiring.context, dim=1),
        wiring.length: torch.tensor([wiring.context], device=backend.device),
    }
    feeds["step"] = {
        wiring.token: encoded,
        wiring.position: torch.tensor([wiring.context - 1], device=backend.device),
    }
    if wiring.window_actions and wiring.action:
        zeros = torch.zeros(1, wiring.context, dtype=torch.int64, device=backend.device)
        feeds["prefill"][wiring.window_actions] = zeros
        feeds["step"][wiring.action] = zeros[:, 0]
    predicted = {k: v.clone() for k, v in engines["prefill"].run(feeds["prefill"]).items()}
    feeds["step"] |= {name: predicted[name] for name, _ in wiring.cache}
    feeds["decoder"] = {wiring.render[1]: predicted[wiring.render[0]]}
    return feeds


def running(engine: Engine, feeds: dict[str, Tensor], wiring: Wiring) -> Callable[[], object]:
    """One run after another; a step's outputs are the next step's inputs, as in a rollout."""
    fed_back = feedback_of(engine.name, wiring)

    def run() -> None:
        outputs = engine.run(feeds)
        for given, output in fed_back.items():
            feeds[given] = outputs[output]

    return run


def session_stage(rollout: Rollout, name: StageName) -> Workload:
    """A step of a session whose window is full; `imagine` is the last one before it slides."""
    session = rollout.session
    before = rollout.nearly_full()
    on_gpu = session.backend.device.type == "cuda"
    if name == "imagine":

        def go_to_last_slot() -> None:
            """With a step before the timed one: that one's cache is already in its place."""
            session.restore(before)
            rollout.advance()

        return Workload(rollout.advance, session.synchronize, go_to_last_slot, on_gpu)
    rollout.advance()
    rollout.advance()  # the window is full now, and the next step makes it slide
    run: Callable[[], object] = rollout.step if name == "frame" else rollout.advance
    return Workload(run, session.synchronize, on_gpu=on_gpu)
