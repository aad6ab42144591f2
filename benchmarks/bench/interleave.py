"""Backends that take turns at every stage, until the ratio of their times is precise.

A shared machine is slow for seconds and fast for seconds. Two backends that are timed one after the
other are compared across such a change; here each round has a block of each, and the ratio is taken
round by round. The ratio itself depends on what the neighbours do (a backend that waits for memory
suffers more than one that computes), so that a stage which is timed in one go sees what holds for
those seconds alone: stages take turns too, and the rounds of each lie all over the bench's time.
It has no processes: `ask` passes commands on.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from wmdeploy.benchmarks.environment import Effort
from wmdeploy.benchmarks.protocol import Block, Command, Samples, Timed, Warm, Warmed
from wmdeploy.benchmarks.report import MOST_ROUNDS
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.benchmarks.stats import percentile, ratio
from wmdeploy.gpu import GpuState

MOST_RUNS = 50  # of one block
SLOW_ROUND = 2.0  # seconds; a stage whose rounds are longer needs fewer of them
SLOW_ROUNDS = 5
LONG_MS = 100.0  # a run that is longer hardly notices that the caches hold another's data
# OpenMP's threads go on looking for work for some ms, on the cores that the next backend needs
SETTLE_SECONDS = 0.02
Kind = TypeVar("Kind")


class Ask(Protocol):
    """An answer of the backend of that label; None if it is dead."""

    def __call__(
        self, label: str, command: Command, kind: type[Kind], doing: str
    ) -> Kind | None: ...


@dataclass(kw_only=True)
class Run:
    """One backend at one stage and batch size: raw times, and the GPU's clocks after each block.

    `round_ms` is empty where there was one run only.
    """

    stage: StageName
    batch: int
    samples: Samples
    gpu: list[GpuState] = field(default_factory=list)
    warmup: int | None = None
    round_ms: list[float] = field(default_factory=list)


def interleave(
    ask: Ask,
    labels: Mapping[StageName, Sequence[str]],
    batch: int,
    effort: Effort,
    clock: Callable[[], float] = time.monotonic,
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[str, Run]]:
    """Time several backends at several stages in turns, until every ratio is precise enough.

    Args:
        labels: by stage, the labels that have it; the first is what others are compared with.
        progress: called before each round with the share of the work that is done, 0 to 1.

    Yields:
        A label and its run, stage by stage, of those that were alive at the stage's last round; a
        stage's rounds are the same for all.
    """
    stages = [
        _StageTurns(ask=ask, stage=stage, batch=batch, effort=effort, clock=clock)
        for stage in labels
    ]
    for stage in stages:
        stage.warm(labels[stage.stage])
    share = 0.0
    # a stage that looks precise goes on with the others: it may have been a quiet moment
    while any(not (stage.precise or stage.over) for stage in stages):
        # what looked precise may look so no more, but progress does not go back
        share = max(share, sum(stage.share for stage in stages) / len(stages))
        progress(share)
        left = [stage for stage in stages if not stage.over]
        min(left, key=lambda stage: stage.spent).take_turns()
    for stage in stages:
        yield from stage.runs.items()


@dataclass(kw_only=True)
class _StageTurns:
    """Those that are alive at one stage, and their rounds so far.

    `precise` says that every ratio is as precise as was asked for, `over` that the time is spent.
    """

    ask: Ask
    stage: StageName
    batch: int
    effort: Effort
    clock: Callable[[], float]
    runs: dict[str, Run] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    done: int = 0
    spent: float = 0.0  # seconds for each backend
    precise: bool = False
    over: bool = False

    @property
    def doing(self) -> str:
        return self.stage if self.batch == 1 else f"{self.stage}, batch {self.batch}"

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1, should the ratios stay imprecise."""
        if self.precise or self.over:
            return 1.0
        rounds = self.done / self.effort.runs
        return min(1.0, rounds, self.spent / max(self.effort.seconds, 1e-9))

    def warm(self, labels: Sequence[str]) -> None:
        for label in labels:
            command = Warm(self.stage, self.batch)
            warmed = self.ask(label, command, Warmed, f"{self.doing}: warm up")
            if warmed is not None:
                self.runs[label] = Run(
                    stage=self.stage, batch=self.batch, samples=Samples([]), warmup=warmed.runs
                )
                self.blocks[label] = self._block(warmed.newest_ms)
        self.over = not self.runs

    def take_turns(self) -> None:
        """A block of each, each time beginning with another one."""
        begun = self.clock()
        first = self.done % len(self.runs)
        turn = list(self.runs)
        for label in [*turn[first:], *turn[:first]]:
            doing = f"{self.doing}: round {self.done + 1}"
            timed = self.ask(label, self.blocks[label], Timed, doing)
            if timed is None:
                del self.runs[label]
            else:
                _add(self.runs[label], timed)
            time.sleep(SETTLE_SECONDS)
        self.done += 1
        self._look(self.clock() - begun)

    def _look(self, seconds: float) -> None:
        """Whether to go on after a round that took so long."""
        if not self.runs:
            self.over = True
            return
        self.spent += seconds / len(self.runs)
        slow = self.spent * len(self.runs) / self.done > SLOW_ROUND
        if self.done < (min(self.effort.runs, SLOW_ROUNDS) if slow else self.effort.runs):
            return
        self.over = self.spent >= self.effort.seconds or self.done >= MOST_ROUNDS
        first, *others = (run.round_ms for run in self.runs.values())
        self.precise = all(ratio(first, o).precision <= self.effort.precision for o in others)

    def _block(self, milliseconds: float) -> Block:
        runs = min(MOST_RUNS, max(1, round(self.effort.block_ms / milliseconds)))
        untimed = 1 if milliseconds < LONG_MS else 0
        return Block(self.stage, runs, untimed)


def _add(run: Run, timed: Timed) -> None:
    device = timed.samples.device
    if device is not None:
        device = [*(run.samples.device or []), *device]
    run.samples = Samples([*run.samples.wall, *timed.samples.wall], device)
    run.round_ms.append(percentile(timed.samples.wall, 50))
    run.gpu += [timed.gpu] if timed.gpu is not None else []
