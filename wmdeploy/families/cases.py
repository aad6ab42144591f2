"""What each graph of a model is asked and should answer: recorded in rollouts of its modules."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from wmdeploy.families.find import family_of
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Programs

if TYPE_CHECKING:
    from torch import nn

    from wmdeploy.codes import CodeCount
    from wmdeploy.programs.record import Case


def record_model(
    model: "nn.Module", layout: str, frames: "np.ndarray", actions: "np.ndarray | None"
) -> "dict[str, list[Case]]":
    """What each graph is asked and answers in float32 rollouts of its module; see `record_cases`.

    Args:
        model: float32, on the CPU.
        frames: (T, H, W, 3) uint8, T >= 2.
        actions: (T, ...) for a model with actions, else None.
    """
    from wmdeploy.programs.modules import module_backend
    from wmdeploy.programs.record import record_cases

    deployed = family_of(model).deployment(model, layout, "fp32")
    return record_cases(module_backend(deployed, name="recorded"), frames, actions)


def expected_outputs(
    model: "nn.Module",
    graph: str,
    case: "Case",
    outputs: Mapping[str, np.ndarray],
    *,
    programs: Programs,
    precision: Precision,
) -> "tuple[dict[str, np.ndarray], CodeCount | None]":
    """What a graph should answer, and for an encoder of codes, how they compare with PyTorch's.

    Where an encoder picks another code, what else it gives is judged by the code it picked.

    Args:
        outputs: what it answered.
    """
    expected = dict(case.outputs)
    frames, codes = programs.frame_input()[1], programs.codes_output()
    if graph != programs.frame_input()[0] or codes is None:
        return expected, None
    family, here, there = family_of(model), outputs[codes], expected[codes]
    ties = family.find_ties(model, case.feeds[frames], there, here, precision)
    for row in np.flatnonzero((there != here).any(1)):
        moved = family.encoded_change(model, before=there[row], after=here[row])
        for name in moved.keys() & expected.keys():
            expected[name] = expected[name].copy()
            expected[name][row] += moved[name]
    return expected, ties.count
