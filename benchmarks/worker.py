"""One backend in a process of its own: `python -m benchmarks.worker JOB.json`.

So that no backend pays for another's memory, threads or imports. It reads a job, and writes
`result.json` and its tensors as .npz files into the job's directory.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchmarks.memory import Memory, measure_memory
from benchmarks.timing import Effort, Samples, measure
from engines.base import Settings
from wmdeploy.bundle import Bundle
from wmdeploy.gpu import GpuState, gpu_state
from wmdeploy.manifest import DType, Wiring

if TYPE_CHECKING:
    from torch import Tensor

    from engines.base import Backend, Engine
    from engines.session import Session

CASES_FILE = "cases.npz"  # written by the baseline: feeds and expected outputs of each graph
ROLLOUT_FILE = "rollout.npz"
RESULT_FILE = "result.json"
EXPECTED_ERROR = "error: "  # how the last line on standard error begins if the user can mend it
FILL_CONTEXT = 2  # frames given where only the time of a full window matters
ENGINE_STAGES = {"encode": "encoder", "prefill": "prefill", "step": "step", "decode": "decoder"}


@dataclass(frozen=True)
class Job:
    """`clip` is an .npz with `frames` and, for a model with actions, `actions`."""

    bundle: Path
    backend: str
    settings: Settings
    clip: Path
    context: int
    horizon: int
    refill: int | None
    batches: tuple[int, ...]
    effort: Effort
    directory: Path
    cases: Path | None  # the baseline's directory; None: this is the baseline, and makes them


@dataclass(frozen=True)
class Run:
    """One stage at one batch size: raw times in ms, and the GPU's clocks right after them."""

    stage: str
    batch: int
    samples: Samples
    gpu: GpuState | None = None


@dataclass(frozen=True)
class Result:
    """`memory` is by batch size; `gpu_found` says whether torch has one to offer."""

    precision: str
    device: str
    gpu_found: bool
    runs: list[Run]
    memory: dict[int, Memory]


def run_job(job: Job) -> None:
    import torch

    from engines.base import load_backend
    from engines.session import Session

    with np.load(job.clip) as clip:
        frames = clip["frames"]
        actions = clip["actions"] if "actions" in clip else None
    bundle = Bundle.open(job.bundle)
    start = time.perf_counter()
    backend = load_backend(job.backend, bundle, job.settings)
    runs = [Run("load", 1, Samples([(time.perf_counter() - start) * 1e3]))]
    tell("first call")
    session = Session(backend, refill=job.refill)
    rollout = Rollout(session, frames, actions, job.context)
    start = time.perf_counter()
    rollout.reset()
    rollout.step()
    session.synchronize()
    runs.append(Run("first_call", 1, Samples([(time.perf_counter() - start) * 1e3])))
    runs += time_engines(backend, frames, job.effort)
    runs += time_session(rollout, job.effort)
    on_gpu = backend.device.type == "cuda"
    memory = {1: measure_memory(on_gpu, backend.statistics())}
    tell("parity")
    record_rollout(rollout, job)
    record_stages(backend, job, bundle, frames, actions)
    for batch in dict.fromkeys(job.batches):
        if batch == 1 or (backend.max_batch is not None and batch > backend.max_batch):
            continue
        many = Rollout(
            Session(backend, batch, job.refill), frames, actions, min(job.context, FILL_CONTEXT)
        )
        runs += time_session(many, job.effort, ("frame", "imagine"))
        memory[batch] = measure_memory(on_gpu, backend.statistics())
    result = Result(backend.precision, str(backend.device), torch.cuda.is_available(), runs, memory)
    (job.directory / RESULT_FILE).write_bytes(msgspec.json.encode(result))


class Rollout:
    """A session on one clip, with the clip's actions where the model takes them."""

    def __init__(
        self, session: "Session", frames: np.ndarray, actions: np.ndarray | None, context: int
    ) -> None:
        self.session = session
        self.frames = frames
        self.context = context
        self.actions = actions if session.wiring.window_actions else None
        self.now = context - 1

    def reset(self, context: int | None = None) -> None:
        """Start anew on the clip's first frames, as many as the context or as given."""
        frames = self.frames[: context or self.context]
        self.now = len(frames) - 1
        known = None if self.actions is None else self.actions[: self.now]
        self.session.reset(frames, known)

    def action(self) -> int | None:
        """The action at the newest frame, past the clip's end its last one is held."""
        self.now += 1
        if self.actions is None:
            return None
        return int(self.actions[min(self.now, len(self.actions)) - 1])

    def step(self) -> np.ndarray:
        return self.session.step(self.action())

    def advance(self) -> None:
        self.session.advance(self.action())


def time_engines(backend: "Backend", frames: np.ndarray, effort: Effort) -> list[Run]:
    """Each engine alone, at batch 1, with a full window; feeds are what the graphs gave."""
    import torch

    engines, wiring = backend.engines, backend.wiring
    pixels = torch.tensor(frames[:1], device=backend.device)
    outputs = engines["encoder"].run({wiring.frames: pixels})
    encoded, codes = (outputs[name].clone() for name in (wiring.encoded, wiring.codes))
    feeds: dict[str, dict[str, Tensor]] = {"encoder": {wiring.frames: pixels}}
    feeds["prefill"] = {
        wiring.window: encoded[:, None].expand(-1, wiring.context, -1).contiguous(),
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
    if wiring.drift:
        for graph in (name for name in ("prefill", "step") if name in engines):
            specs = {spec.name: spec for spec in engines[graph].inputs}
            drift = torch.zeros(1, int(specs[wiring.drift[0]].shape[1]), device=backend.device)
            feeds[graph][wiring.drift[0]] = drift
    predicted = {k: v.clone() for k, v in engines["prefill"].run(feeds["prefill"]).items()}
    feeds["step"] |= {name: predicted[name] for name, _ in wiring.cache}
    feeds["decoder"] = {wiring.render[1]: predicted[wiring.render[0]]}
    if wiring.anchor:
        feeds["decoder"][wiring.anchor] = codes
    on_gpu = backend.device.type == "cuda"
    runs = []
    for stage, graph in ENGINE_STAGES.items():
        tell(stage)
        # without a step graph, as in the baseline, a step is the whole window once more
        name = graph if graph in engines else "prefill"
        run = running(engines[name], feeds[name], wiring)
        samples = measure(run, engines[name].synchronize, effort, on_gpu=on_gpu)
        runs.append(Run(stage, 1, samples, gpu_state() if on_gpu else None))
    if on_gpu:
        tell("download")
        pixels = engines["decoder"].run(feeds["decoder"])[wiring.frame]
        samples = measure(pixels.cpu, engines["decoder"].synchronize, effort, on_gpu=True)
        runs.append(Run("download", 1, samples, gpu_state()))
    return runs


def running(engine: "Engine", feeds: "dict[str, Tensor]", wiring: Wiring) -> Callable[[], object]:
    """One run after another; a step's outputs are the next step's inputs, as in a rollout."""
    from engines.static import feedback_of

    fed_back = feedback_of(engine.name, wiring)

    def run() -> None:
        outputs = engine.run(feeds)
        for given, output in fed_back.items():
            feeds[given] = outputs[output]

    return run


def time_session(
    rollout: Rollout, effort: Effort, only: tuple[str, ...] = ("imagine", "slide", "frame")
) -> list[Run]:
    """Whole steps of a session whose window is full."""
    session = rollout.session
    slots = session.wiring.context
    # at least one advance, so that the cache is filled and the next step is a step
    context = max(1, min(rollout.context, slots - 2))
    rollout.reset(context)
    for _ in range(slots - context - 1):
        rollout.advance()
    before = session.snapshot()

    def go_to_last_slot() -> None:
        """With a step before the one that is timed: that one's cache is already in its place."""
        session.restore(before)
        rollout.advance()

    stages: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "imagine": (rollout.advance, go_to_last_slot),
        "slide": (rollout.advance, lambda: None),
        "frame": (rollout.step, lambda: None),
    }
    on_gpu = session.backend.device.type == "cuda"
    runs = []
    for stage in (stage for stage in stages if stage in only):
        tell(stage if session.batch == 1 else f"{stage}, batch {session.batch}")
        run, prepare = stages[stage]
        samples = measure(run, session.synchronize, effort, prepare, on_gpu)
        runs.append(Run(stage, session.batch, samples, gpu_state() if on_gpu else None))
    return runs


def record_rollout(rollout: Rollout, job: Job) -> None:
    """The imagined frames, and the codes of as many real frames as the parity looks at."""
    rollout.reset()
    imagined = np.concatenate([rollout.step() for _ in range(job.horizon)])
    with np.load(job.clip) as clip:
        frames = clip["frames"]
    encoder, wiring = rollout.session.backend.engines["encoder"], rollout.session.wiring
    import torch

    device = rollout.session.backend.device
    codes = []
    for frame in frames[: job.context + job.horizon]:
        feeds = {wiring.frames: torch.tensor(frame[None], device=device)}
        codes.append(encoder.run(feeds)[wiring.codes].cpu().numpy())
    np.savez(job.directory / ROLLOUT_FILE, frames=imagined, codes=np.concatenate(codes))


def record_stages(
    backend: "Backend",
    job: Job,
    bundle: Bundle,
    frames: np.ndarray,
    actions: np.ndarray | None,
) -> None:
    """Each graph's outputs for the baseline's feeds; the baseline writes feeds and expectations."""
    import torch

    arrays: dict[str, np.ndarray] = {}
    if job.cases is None:
        arrays = baseline_cases(bundle, frames[: job.context], actions)
    elif backend.wiring == bundle.manifest.wiring:  # otherwise it runs graphs of its own
        with np.load(job.cases / CASES_FILE) as cases:
            for name, engine in backend.engines.items():
                feeds = {
                    s.name: torch.tensor(cases[f"{name}/feed/{s.name}"]) for s in engine.inputs
                }
                outputs = engine.run({k: v.to(backend.device) for k, v in feeds.items()})
                arrays |= {f"{name}/{k}": v.float().cpu().numpy() for k, v in outputs.items()}
    np.savez(job.directory / CASES_FILE, allow_pickle=False, **arrays)


def baseline_cases(
    bundle: Bundle, frames: np.ndarray, actions: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Feeds of each graph of the bundle, and what the model as written answers, in float32."""
    import torch

    from wmdeploy.models.cases import world_model_cases
    from wmdeploy.models.checkpoint import load_model
    from wmdeploy.models.graphs import deployment

    recipe = bundle.manifest.recipe
    model = load_model(bundle.checked_model())
    acted = torch.tensor(actions) if actions is not None else None
    acted = acted if model.config.temporal.num_actions else None
    float_type: DType = "float32" if recipe.precision == "fp32" else "float16"
    cases = world_model_cases(model, recipe.layout, float_type, torch.tensor(frames), acted)
    arrays: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for name, build in deployment(model, recipe.layout, "fp32").graphs.items():
            graph, case = build(), cases[name]
            feeds = {k: v.float() if v.is_floating_point() else v for k, v in case.feeds.items()}
            results = graph.module(*(feeds[spec.name] for spec in graph.inputs))
            results = results if isinstance(results, tuple) else (results,)
            specs = [spec.name for spec in graph.outputs]
            expected = case.expected(dict(zip(specs, results, strict=True)))
            arrays |= _named(f"{name}/feed", case.feeds) | _named(f"{name}/expected", expected)
    return arrays


def _named(prefix: str, tensors: "Mapping[str, Tensor]") -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": tensor.numpy() for name, tensor in tensors.items()}


def tell(stage: str) -> None:
    """A line for the parent's progress display."""
    print(f"stage {stage}", flush=True)


def main() -> None:
    from wmdeploy.errors import WmdeployError

    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job, dec_hook=_path)
    try:
        run_job(job)
    except WmdeployError as error:
        print(f"{EXPECTED_ERROR}{error}", file=sys.stderr)
        sys.exit(1)


def _path(kind: type, value: str) -> Path:
    return Path(value)


if __name__ == "__main__":
    main()
