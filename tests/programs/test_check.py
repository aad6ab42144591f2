"""Programs of a stranger: what would let a session crash or answer wrongly is refused."""

import dataclasses
from typing import Any

from tests.families import sampled
from wmdeploy.families import Graph
from wmdeploy.programs.check import find_fault
from wmdeploy.programs.contract import Programs, TensorSpec, state_inputs


def parts() -> tuple[Programs, dict[str, Graph]]:
    model = sampled.SampledFamily().load("sampled-4", 0, None)
    assert isinstance(model, sampled.Sampled)
    deployed = sampled.SampledFamily().deployment(model, "default", "fp32")
    return deployed.programs, {name: build() for name, build in deployed.graphs.items()}


def test_a_family_of_ours_has_no_fault() -> None:
    assert find_fault(*parts()) is None


def call(programs: Programs, name: str, **changes: Any) -> dict[str, Any]:
    """The programs with the first call of one changed."""
    first, *others = getattr(programs, name)
    return {name: (dataclasses.replace(first, **changes), *others)}


def test_faults_are_found() -> None:
    programs, graphs = parts()
    render, encode = programs.render[0], programs.encode[0]
    odd = TensorSpec("", "int64", ("B", 4))
    faults: dict[str, dict[str, Any]] = {
        "undo names a state twice": {"undo": ("used", "used")},
        "the name ''": {"records": (*programs.records, odd)},
        "the name 'a.b'": {"outputs": (*programs.outputs, TensorSpec("a.b", "int64", ("B",)))},
        'gives "new.frame"': {
            "render": (render, dataclasses.replace(render, gives={"new.frame": "frame"}))
        },
        'gives "out"': call(programs, "encode", gives=encode.gives | {"out": "tokens"}),
        "no program calls the graph": {"refresh": (), "absorb": ()},
        'fed from "action.action"': call(
            programs, "predict", feeds=programs.predict[0].feeds | {"action": "action.action"}
        ),
    }
    for fault, change in faults.items():
        found = find_fault(dataclasses.replace(programs, **change), graphs)
        assert found is not None and fault in found, (fault, found)


def test_a_graph_without_inputs_is_refused() -> None:
    programs, graphs = parts()
    graphs["encoder"] = dataclasses.replace(graphs["encoder"], inputs=())
    found = find_fault(programs, graphs)
    assert found == "the graph encoder has no inputs, or no outputs"


def test_what_is_state_in_one_call_alone_is_not_bound_by_address() -> None:
    programs, _ = parts()
    assert state_inputs(programs, "token") == {"used", "keys", "values"}
    assert state_inputs(programs, "absorb") == frozenset()  # a refresh feeds it zeros
