"""One backend in a process of its own: `python -m wmdeploy.benchmarks.worker JOB.json`.

So that no backend pays for another's memory, threads or imports. It loads, then answers commands
(`wmdeploy.benchmarks.protocol`) until its standard input ends; it knows of no other backend.
"""

import dataclasses
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from wmdeploy.benchmarks.protocol import (
    ANSWER,
    CASES_FILE,
    MISSING,
    REFUSED,
    SAME_CODES,
    TIES_FILE,
    Answer,
    Block,
    Command,
    CountedTies,
    CountTies,
    FixedRateTimes,
    Job,
    Loaded,
    MeasuredMemory,
    MeasureMemory,
    Record,
    Recorded,
    RunAtRate,
    Substitute,
    Substituted,
    Timed,
    Warm,
    Warmed,
    full_file,
    rollout_file,
)
from wmdeploy.benchmarks.stages import StageName, find_stage
from wmdeploy.benchmarks.worker.memory import MemoryMeter
from wmdeploy.errors import MissingError, WmdeployError
from wmdeploy.programs.contract import FULL
from wmdeploy.text import one_line

if TYPE_CHECKING:
    from wmdeploy.benchmarks.worker.rollouts import Filled
    from wmdeploy.benchmarks.worker.timing import Workload
    from wmdeploy.benchmarks.worker.workloads import Feeds
    from wmdeploy.programs.engine import Backend

WARM_FRAMES = 3  # before the fixed rate
FILL_CONTEXT = 2  # frames given where only the time of a full window matters


class Worker:
    """A loaded backend and a session, with which it goes through the clips.

    Stages take turns, and `frame` and `slide` go on from where they were: they have sessions of
    their own, and stages of bare engines have arrays of their own.
    """

    def __init__(self, job: Job) -> None:
        import torch

        from wmdeploy.benchmarks.worker.rollouts import Rollout, read_clip_file
        from wmdeploy.benchmarks.worker.workloads import stage_names
        from wmdeploy.bundle import Bundle
        from wmdeploy.programs.session import Session

        self.job = job
        self.whole = Bundle.open(job.bundle)
        self.bundle = self.whole.with_decoder(job.settings.decoder)
        self.meter = MemoryMeter()
        self._batch = 1
        self._workloads: dict[str, Workload] = {}  # at that batch
        self._feeds: Feeds | None = None
        self._filled: Filled | None = None
        clips = [read_clip_file(path) for path in job.clips]
        with self.meter.working(torch.cuda.is_available()):
            start = time.perf_counter()
            self.backend = self._timed()
            loaded = time.perf_counter()
            session = Session(self.backend, refill=job.refill)
            self.rollouts = [Rollout(session, *clip, job.context) for clip in clips]
            begun = time.perf_counter()
            self.rollouts[0].reset()
            self.rollouts[0].step()
            session.synchronize()
            called = time.perf_counter()
        self.on_gpu = self.backend.on_gpu
        self.loaded = Loaded(
            precision=self.backend.precision,
            weights=self.backend.weights,
            device=self.backend.device,
            has_gpu=torch.cuda.is_available(),
            threads=self.backend.threads,
            max_batch=self.backend.max_batch,
            stages=stage_names(self.backend, self.bundle.manifest),
            load_ms=(loaded - start) * 1e3,
            first_call_ms=(called - begun) * 1e3,
        )

    def answer(self, command: Command) -> Answer:
        with self.meter.working(self.on_gpu):
            match command:
                case Warm():
                    return self._warm(command)
                case Block():
                    return self._block(command)
                case MeasureMemory():
                    return MeasuredMemory(
                        self.meter.measure(self.on_gpu, self.backend.statistics())
                    )
                case Record():
                    return self._record(command.same_codes)
                case CountTies():
                    return self._find_ties(command)
                case RunAtRate():
                    return self._pace(command)
                case Substitute():
                    return self._swap(command)

    def _warm(self, command: Warm) -> Warmed:
        from wmdeploy.benchmarks.worker.timing import measure, warm_up

        if command.batch != self._batch:  # the smaller batch's memory goes first
            self._workloads.clear()
            self._batch, self._feeds, self._filled = command.batch, None, None
        session = find_stage(command.stage).session
        make = self._session_stage if session else self._engine_stage
        stage = make(command.stage)
        self._workloads[command.stage] = stage
        times = warm_up(lambda: measure(stage, 1).wall[0])
        return Warmed(len(times), min(times[-2:]))

    def _block(self, command: Block) -> Timed:
        from wmdeploy.benchmarks.worker.timing import measure
        from wmdeploy.gpu import gpu_state

        stage = self._workloads[command.stage]
        measure(stage, command.untimed)
        samples = measure(stage, command.runs)
        return Timed(samples, gpu_state() if self.on_gpu else None)

    def _engine_stage(self, name: StageName) -> "Workload":
        from wmdeploy.benchmarks.worker.workloads import (
            download_stage,
            engine_stage,
            graph_behind,
            record_feeds,
        )

        if self._feeds is None:
            self._feeds = record_feeds(self.backend, self.rollouts[0])
        if name == "download":
            return download_stage(self.backend, self._feeds)
        graph = graph_behind(name, self.backend.programs, self.bundle.manifest.programs)
        assert graph is not None, "a stage of `stage_names`"
        return engine_stage(self.backend, self._feeds, graph)

    def _session_stage(self, name: StageName) -> "Workload":
        from wmdeploy.benchmarks.worker.rollouts import Rollout
        from wmdeploy.benchmarks.worker.workloads import session_stage
        from wmdeploy.programs.session import Session

        rollout = self.rollouts[0]
        if self._batch > 1 or name != "imagine":  # which goes back to the same moment each time
            context = self.job.context if self._batch == 1 else min(self.job.context, FILL_CONTEXT)
            session = Session(self.backend, self._batch, self.job.refill)
            clip = rollout.frames, rollout.actions
            rollout = Rollout(session, *clip, context, self._filled)
        stage = session_stage(rollout, name)
        self._filled = rollout.filled
        return stage

    def _record(self, same_codes: bool) -> Recorded:
        from wmdeploy.benchmarks.worker.graph_outputs import backend_answers, baseline_cases
        from wmdeploy.benchmarks.worker.rollouts import Rollout, record
        from wmdeploy.programs.session import Session

        job, first = self.job, self.rollouts[0]
        backend, directory = self._steady, job.directory
        if same_codes:
            backend, directory = self._with_same_codes(), directory / SAME_CODES
            directory.mkdir()
        session = Session(backend, refill=job.refill)
        for number, clip in enumerate(self.rollouts):
            rollout = Rollout(session, clip.frames, clip.actions, job.context)
            arrays = record(rollout, job.horizon)
            np.savez(directory / rollout_file(number), allow_pickle=False, **arrays)
        if job.is_baseline:
            frames = first.frames[: max(2, job.context)]  # what is recorded takes two at least
            frames = np.repeat(frames, 2, axis=0) if len(frames) < 2 else frames
            arrays = baseline_cases(self.bundle, frames, first.actions)
        else:
            arrays = backend_answers(backend, self.bundle, job.baseline / CASES_FILE)
        np.savez(directory / CASES_FILE, allow_pickle=False, **arrays)
        if job.is_baseline and job.settings.decoder != FULL:
            self._record_full()
        return Recorded()

    def _record_full(self) -> None:
        """What the full decoder makes of the same rollouts."""
        from wmdeploy.benchmarks.worker.rollouts import Rollout
        from wmdeploy.programs.record import encoding_once
        from wmdeploy.programs.session import Session

        session = Session(encoding_once(self.backend), refill=self.job.refill)
        for number, clip in enumerate(self.rollouts):
            rollout = Rollout(session, clip.frames, clip.actions, self.job.context)
            rollout.reset()
            frames = np.concatenate([rollout.step() for _ in range(self.job.horizon)])
            np.savez(self.job.directory / full_file(number), allow_pickle=False, free=frames)

    def _timed(self) -> "Backend":
        """What is timed: the baseline as its authors run it, with the full decoder."""
        from wmdeploy.engines.base import load_backend

        settings = self.job.settings
        if self.job.is_baseline:
            settings = dataclasses.replace(settings, decoder=FULL)
        return load_backend(self.job.backend, self.whole, settings)

    def _with_same_codes(self) -> "Backend":
        from wmdeploy.benchmarks.worker.ties import read_corrections
        from wmdeploy.engines.same_codes import with_same_codes

        clips = [rollout.frames for rollout in self.rollouts]
        correct = read_corrections(self.job.directory / TIES_FILE, clips)
        return with_same_codes(self._steady, correct)

    @functools.cached_property
    def _steady(self) -> "Backend":
        """The backend as both recordings take it: they must agree on what ties.

        Kernels that add in no fixed order, as ONNX Runtime's GroupNorm on a GPU, round otherwise
        from run to run, and codes that tie fall now here, now there. The baseline records with the
        decoder that the others have, though it is timed with the full one.
        """
        from wmdeploy.engines.base import load_backend
        from wmdeploy.programs.record import encoding_once

        job, backend = self.job, self.backend
        if job.is_baseline and job.settings.decoder != FULL:
            backend = load_backend(job.backend, self.whole, job.settings)
        return encoding_once(backend)

    def _find_ties(self, command: CountTies) -> CountedTies:
        from wmdeploy.benchmarks.worker.ties import write_ties

        clips = [rollout.frames for rollout in self.rollouts]
        directory = Path(command.directory)
        counts = write_ties(self.bundle, clips, self.job.directory, directory, command.precision)
        return CountedTies(counts)

    def _pace(self, command: RunAtRate) -> FixedRateTimes:
        from wmdeploy.benchmarks.worker.fixed_rate import run_at_rate
        from wmdeploy.benchmarks.worker.timing import measure
        from wmdeploy.benchmarks.worker.workloads import session_stage
        from wmdeploy.gpu import gpu_state

        stage = session_stage(self.rollouts[0], "frame")
        measure(stage, WARM_FRAMES)
        times = run_at_rate(stage.run, command.fps, command.seconds)
        return dataclasses.replace(times, gpu=gpu_state() if self.on_gpu else None)

    def _swap(self, command: Substitute) -> Substituted:
        from wmdeploy.benchmarks.worker.graph_substitution import substitute_graphs

        first, job = self.rollouts[0], self.job
        clip = (first.frames, first.actions)
        return substitute_graphs(
            self.backend,
            self.bundle,
            clip=clip,
            context=job.context,
            frames=command.frames,
            refill=job.refill,
            decoder=job.settings.decoder,
        )


def pin(threads: int | None) -> None:
    """Keep this process on as many CPUs of those it may use as it has threads."""
    if threads is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def say(answer: Answer) -> None:
    print(f"{ANSWER}{msgspec.json.encode(answer).decode()}", flush=True)


def main() -> None:
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job, dec_hook=_path)
    pin(job.settings.threads)
    try:
        worker = Worker(job)
        say(worker.loaded)
        for line in sys.stdin:
            say(worker.answer(msgspec.json.decode(line, type=Command)))
    except WmdeployError as error:
        kind = MISSING if isinstance(error, MissingError) else REFUSED
        print(f"{kind}{one_line(str(error))}", file=sys.stderr)
        sys.exit(1)


def _path(kind: type, value: str) -> Path:
    return Path(value)


if __name__ == "__main__":
    main()
