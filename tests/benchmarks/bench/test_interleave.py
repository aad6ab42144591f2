"""Backends in turns, on a machine whose time the test makes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from wmdeploy.benchmarks.bench.interleave import Run, interleave
from wmdeploy.benchmarks.environment import Effort
from wmdeploy.benchmarks.protocol import Block, Command, Samples, Timed, Warm, Warmed
from wmdeploy.benchmarks.report import MOST_ROUNDS
from wmdeploy.benchmarks.stages import StageName
from wmdeploy.benchmarks.stats import ratio

DEFAULT = Effort()


class Machine:
    """Answers as workers would, on a clock of its own that runs only while they work."""

    def __init__(self, times: Mapping[str, Sequence[float]]) -> None:
        self.times = times  # ms of each block in turn, by label; again and again
        self.now = 0.0
        self.asked: list[tuple[str, Command]] = []
        self.dead: set[str] = set()

    def __call__(self, label: str, command: Command, kind: type[Any], doing: str) -> Any:
        self.asked.append((label, command))
        if label in self.dead:
            return None
        if isinstance(command, Warm):
            return Warmed(3, self.times[label][0])
        assert isinstance(command, Block)
        done = sum(isinstance(c, Block) and who == label for who, c in self.asked) - 1
        ms = self.times[label][done % len(self.times[label])]
        self.now += ms * (command.runs + command.untimed) / 1e3
        return Timed(Samples([ms] * command.runs), None)

    def run(self, effort: Effort = DEFAULT) -> dict[str, Run]:
        return dict(interleave(self, {"frame": list(self.times)}, 1, effort, lambda: self.now))

    def blocks(self) -> list[str]:
        return [label for label, command in self.asked if isinstance(command, Block)]

    def stages(self) -> list[str]:
        return [command.stage for _, command in self.asked if isinstance(command, Block)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses."""
    monkeypatch.setattr("wmdeploy.benchmarks.bench.interleave.SETTLE_SECONDS", 0)


def test_backends_take_turns_and_the_first_changes() -> None:
    machine = Machine({"a": [10.0], "b": [5.0], "c": [2.0]})
    machine.run(Effort(runs=4))
    assert "".join(machine.blocks()) == "abcbcacababc"


def test_stages_take_turns_until_each_is_precise() -> None:
    """What a neighbour does for some seconds is in a few rounds of all, not in all of a few."""
    machine = Machine({"a": [10.0]})
    labels: dict[StageName, list[str]] = {"load": [], "encoder": ["a"], "step": ["a"]}
    found = list(interleave(machine, labels, 1, Effort(runs=3), lambda: machine.now))
    assert machine.stages() == ["encoder", "step"] * 3
    assert [(label, run.stage) for label, run in found] == [("a", "encoder"), ("a", "step")]


def test_stage_that_looks_precise_goes_on_with_the_others() -> None:
    wild = np.random.default_rng(4).lognormal(2, 0.8, 400).tolist()
    machine = Machine({"a": [10.0], "b": wild})

    def ask(label: str, command: Command, kind: type[Any], doing: str) -> Any:
        noisy = machine(label, command, kind, doing)
        if isinstance(command, Block) and command.stage == "encoder":
            return Timed(Samples([7.0]), None)
        return noisy

    labels: dict[StageName, list[str]] = {"encoder": ["a", "b"], "step": ["a", "b"]}
    found = list(interleave(ask, labels, 1, Effort(seconds=2), lambda: machine.now))
    rounds_of = {run.stage: len(run.round_ms) for _, run in found}
    assert DEFAULT.runs < rounds_of["step"] and abs(rounds_of["encoder"] - rounds_of["step"]) < 10


def test_long_stage_is_spread_over_the_time_of_all() -> None:
    wild = np.random.default_rng(4).lognormal(0, 0.3, 9999)  # never precise
    machine = Machine({"a": [10.0], "b": [10.0]})
    order: list[str] = []

    def ask(label: str, command: Command, kind: type[Any], doing: str) -> Any:
        if isinstance(command, Warm):
            return Warmed(3, 10.0)
        assert isinstance(command, Block)
        order.append(command.stage)
        ms = wild[len(order)] * (400 if command.stage == "frame" else 40)
        machine.now += ms / 1e3
        return Timed(Samples([ms]), None)

    labels: dict[StageName, list[str]] = {"frame": ["a", "b"], "step": ["a", "b"]}
    list(interleave(ask, labels, 1, Effort(seconds=10), lambda: machine.now))
    half = len(order) // 2
    early, late = order[:half].count("frame"), order[half:].count("frame")
    assert early > 8 and abs(early - late) <= 4


def test_block_lasts_about_the_time_it_should() -> None:
    machine = Machine({"a": [15.0], "b": [400.0], "c": [0.1]})
    machine.run()
    blocks = {label: command for label, command in machine.asked if isinstance(command, Block)}
    assert {label: (b.runs, b.untimed) for label, b in blocks.items()} == {
        "a": (3, 1), "b": (1, 0), "c": (50, 1)
    }  # fmt: skip


def test_ratio_is_of_pairs_so_that_what_both_share_cancels() -> None:
    drift = [1.0, 3.0, 1.5, 2.0, 9.0, 1.1, 4.0, 2.5]
    found = Machine({"a": [10 * d for d in drift], "b": [5 * d for d in drift]}).run()
    both = ratio(found["a"].round_ms, found["b"].round_ms)
    assert (both.value, both.low, both.high) == pytest.approx((2, 2, 2))
    assert len(found["a"].round_ms) == DEFAULT.runs  # precise at once, for all the noise


def test_rounds_go_on_until_precise() -> None:
    random = np.random.default_rng(2)
    times = {label: random.normal(10, 0.4, 400).tolist() for label in "ab"}
    found = Machine(times).run(Effort(seconds=1000))
    count = len(found["a"].round_ms)
    assert DEFAULT.runs < count < MOST_ROUNDS
    assert ratio(found["a"].round_ms, found["b"].round_ms).precision <= 0.015
    before = ratio(found["a"].round_ms[:-1], found["b"].round_ms[:-1])
    assert before.precision > 0.015


def test_rounds_end_when_the_time_is_over() -> None:
    wild = np.random.default_rng(4).lognormal(2, 0.8, 400).tolist()  # never precise
    machine = Machine({"a": [10.0], "b": wild})
    found = machine.run(Effort(seconds=2))
    assert 4 <= machine.now < 4.5 and DEFAULT.runs < len(found["b"].round_ms) < MOST_ROUNDS


def test_slow_stage_needs_fewer_rounds() -> None:
    found = Machine({"a": [1500.0], "b": [900.0]}).run()
    assert len(found["a"].round_ms) == 5


def test_dead_backend_leaves_and_the_others_go_on() -> None:
    machine = Machine({"a": [10.0], "b": [5.0], "c": [2.0]})
    inner = machine.__call__

    def ask(label: str, command: Command, kind: type[Any], doing: str) -> Any:
        if label == "b" and machine.blocks().count("b") == 2:
            machine.dead.add("b")
        return inner(label, command, kind, doing)

    found = dict(interleave(ask, {"frame": list("abc")}, 1, Effort(), lambda: machine.now))
    assert list(found) == ["a", "c"]
    assert len(found["a"].round_ms) == len(found["c"].round_ms) == DEFAULT.runs


def test_progress_never_goes_back() -> None:
    """A stage that looked precise may look so no more when more of its rounds are there."""
    random = np.random.default_rng(0)
    times = {label: random.normal(10, 0.3, 400).tolist() for label in "ab"}
    machine, shares = Machine(times), list[float]()
    labels: dict[StageName, list[str]] = {
        name: list("ab") for name in ("encoder", "step", "decoder", "frame")
    }
    list(interleave(machine, labels, 1, Effort(), lambda: machine.now, shares.append))
    assert len(set(shares)) > 3 and shares == sorted(shares)
