"""Caches of which a graph gives the newest entries alone."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wmdeploy.errors import BackendError
from wmdeploy.families import Deployment, Graph, floats, integers, pixels
from wmdeploy.programs.check import find_fault, slot_axis
from wmdeploy.programs.contract import BATCH, Call, Programs, Shape, TensorSpec
from wmdeploy.programs.modules import module_backend
from wmdeploy.programs.session import Session

ENTRIES = 6


class Encode(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.float().mean((1, 2, 3))


class Pair(nn.Module):
    """The record, and ten times it, are the two newest entries; the whole cache is an output."""

    def forward(self, seen: Tensor, used: Tensor, cache: Tensor) -> tuple[Tensor, ...]:
        entries = torch.stack([seen, 10 * seen])  # (2, B)
        return entries, used + 2, seen + 1, cache.transpose(0, 1)


def deployment() -> Deployment:
    seen = floats("seen")
    cache = TensorSpec("cache", "float32", (ENTRIES, BATCH))
    pair = Graph(
        Pair(),
        (seen, integers("used"), cache),
        (
            TensorSpec("entries", "float32", (2, BATCH)),
            integers("next_used"),
            floats("next_seen"),
            floats("before", ENTRIES),
        ),
    )
    feeds = {"used": "state.used", "cache": "state.cache"}
    gives = {"slot.cache@used": "entries", "state.used": "next_used", "out.before": "before"}
    programs = Programs(
        context=8,
        keep=1,
        state=(integers("used"), cache),
        records=(seen,),
        outputs=(floats("before", ENTRIES),),
        encode=(Call("encoder", {"frames": "frame"}, {"new.seen": "seen"}),),
        absorb=(Call("pair", feeds | {"seen": "new.seen"}, gives),),
        predict=(Call("pair", feeds | {"seen": "newest.seen"}, gives | {"new.seen": "next_seen"}),),
    )
    encoder = Graph(Encode(), (pixels("frames", 4),), (seen,))
    return Deployment({"encoder": lambda: encoder, "pair": lambda: pair}, programs)


def test_several_entries_are_written_where_each_row_is() -> None:
    session = Session(module_backend(deployment(), name="slots"), batch=2)
    session.reset(np.full((1, 4, 4, 3), 3, np.uint8), rows=[0])
    session.reset(np.full((2, 4, 4, 3), 5, np.uint8), rows=[1])
    session.advance()
    before = session.outputs()["before"]
    np.testing.assert_array_equal(before[0], [3, 30, 0, 0, 0, 0])
    np.testing.assert_array_equal(before[1], [5, 50, 5, 50, 0, 0])
    with pytest.raises(BackendError, match="state.cache: entries from 4 to 6, expected 0 to 4"):
        session.advance()


def test_entries_that_are_no_part_of_a_cache_are_a_fault() -> None:
    deployed = deployment()
    graphs = {name: build() for name, build in deployed.graphs.items()}
    assert find_fault(deployed.programs, graphs) is None
    entries, *others = graphs["pair"].outputs
    for shape in ((ENTRIES, BATCH), (ENTRIES + 1, BATCH), (BATCH, 2), (2, BATCH, 1)):
        wrong = dataclasses.replace(entries, shape=shape)
        graphs["pair"] = dataclasses.replace(graphs["pair"], outputs=(wrong, *others))
        fault = find_fault(deployed.programs, graphs)
        assert fault is not None and "slot.cache@used" in fault, shape


def test_the_axis_of_entries_is_the_one_that_is_shorter() -> None:
    cache = TensorSpec("cache", "float32", (3, BATCH, 8, 4))
    shapes: dict[Shape, int] = {
        (3, BATCH, 1, 4): 2,
        (3, BATCH, 7, 4): 2,
        (3, BATCH, 8, 1): 3,
        (1, BATCH, 8, 4): 0,
    }
    for shape, axis in shapes.items():
        assert slot_axis(cache, TensorSpec("entries", "float32", shape)) == axis
    assert slot_axis(cache, TensorSpec("entries", "float32", (3, BATCH, 1, 1))) is None
    assert slot_axis(cache, TensorSpec("entries", "float32", (3, 1, 8, 4))) is None
