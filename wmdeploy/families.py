"""What the rest of wmdeploy asks of a model family, and the one dict of families.

A family is a kind of model: its modules, its files, its graphs and programs. All else treats a
model as an `nn.Module` that it does not look into, and asks its family:

    model = load_model("models/pong")
    deployment = family_of(model).deployment(model, "token", "fp32")

Importing this module imports no torch and no family.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmdeploy.errors import BundleError, CheckpointError, require
from wmdeploy.manifest import Layout, Manifest, Precision, not_the_folder
from wmdeploy.programs.contract import Programs, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from wmdeploy.codes import CodeCount, Ties
    from wmdeploy.programs.record import Case

# Each value is "module:object"; the object is a ModelFamily of that name. They are asked in this
# order whether they recognise a source. The last one is asked for what none recognises, and says
# what is wrong with it.
FAMILIES = {
    "vqvae-transformer": "wmdeploy.models.family:FAMILY",
}


@dataclass(frozen=True)
class Graph:
    """One module with the names, dtypes and shapes of what it takes and gives, in order."""

    module: "nn.Module"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Deployment:
    """What exporters and engines run of a model: its graphs, built one by one, and its programs."""

    graphs: dict[str, Callable[[], Graph]]
    programs: Programs

    def kept(self) -> "Deployment":
        """The same, with each graph built once at most; in float32 they share their weights."""
        return Deployment(
            {name: cache(build) for name, build in self.graphs.items()}, self.programs
        )


@dataclass(frozen=True)
class ModelFacts:
    """What anyone may know of a model.

    Attributes:
        image_size: height and width of its frames, in pixels.
        num_actions: 0, or its actions are integers from 0 to num_actions - 1.
        config: its sizes as JSON types, by part and name; a bundle's manifest holds it.
        parameters: how many trainable values it has, in all ("all") and by part.
        action_size: 0, or its actions are vectors of so many floats.
    """

    image_size: int
    num_actions: int
    config: dict[str, dict[str, Any]]
    parameters: dict[str, int]
    action_size: int = 0


class ModelFamily(ABC):
    """One kind of model; `model` is always one that `load` or `build` gave.

    Attributes:
        name: its key in `FAMILIES`. Manifests hold it, and so does the attribute `family` of the
            class of its models.
        title: its name for people; exported graphs carry it.
        presets: sources without a file, whose weights are drawn from a seed.
    """

    name: str
    title: str
    presets: tuple[str, ...] = ()

    @abstractmethod
    def recognises(self, source: str) -> bool:
        """Whether a file, folder or preset is of this family, as far as a glance tells."""

    @abstractmethod
    def load(self, source: str, seed: int, remarks: list[str] | None) -> "nn.Module":
        """A model in float32 on the CPU, in evaluation mode, without gradients.

        Args:
            seed: of a preset's weights.
            remarks: gets a line for each thing that a user should know.

        Raises:
            CheckpointError: it is none of this family's, is damaged, or has weights that are not
                finite.
        """

    @abstractmethod
    def build(self, config: dict[str, Any]) -> "nn.Module":
        """A model of `ModelFacts.config`, read from an untrusted file, with any weights.

        Raises:
            CheckpointError: the sizes are no model's.
        """

    @abstractmethod
    def save(self, model: Any, directory: Path, notes: dict[str, Any]) -> None:
        """Write what `load` takes into a directory that the caller stages.

        Raises:
            OSError: it cannot be written.
        """

    @abstractmethod
    def notes(self, source: str) -> dict[str, Any]:
        """The notes that `save` was given, as JSON types; {} where there are none.

        Raises:
            CheckpointError: they are damaged.
        """

    @abstractmethod
    def facts(self, model: Any) -> ModelFacts:
        """Its sizes, of a model on any device, `meta` included."""

    @abstractmethod
    def deployment(self, model: Any, layout: Layout, precision: Precision) -> Deployment:
        """The graphs that are exported, and the programs that call them.

        Each graph is built when it is asked for, and may share the model's weights. The contract
        is in `wmdeploy.programs.contract`.
        """

    @abstractmethod
    def baseline_deployment(self, model: Any, precision: Precision) -> Deployment:
        """The model as its authors run it, as graphs and programs of its own.

        In fp32 it is what every backend is compared with. A graph that is also among those of
        `deployment`, by the same name, takes the same there.
        """

    def find_ties(
        self,
        model: Any,
        frames: "np.ndarray",
        expected: "np.ndarray",
        got: "np.ndarray",
        precision: Precision,
    ) -> "Ties":
        """Which codes that differ are ties: rounding alone decides between them.

        Args:
            model: float32, on any device.
            frames: (T, H, W, 3) uint8.
            expected: (T, N) int, PyTorch's codes in float32.
            got: (T, N) int, the backend's; those that are no code are wrong.
            precision: of the backend.

        Of a family that does not say otherwise, none ties.
        """
        from wmdeploy.codes import CodeCount, Ties

        differs = expected != got
        count = CodeCount(codes=differs.size, wrong=int(differs.sum()))
        return Ties(differs & False, count)

    def encoded_change(
        self, model: Any, before: "np.ndarray", after: "np.ndarray"
    ) -> "dict[str, np.ndarray]":
        """By how much the encoder's other output changes with a frame's codes, (N,) int64 each.

        Codes are given as `before` where they are the same. Where `after` has no code of the
        model, nothing changes.

        Returns:
            By the output's name in each layout: float32, of one row of that output. Of a family
            that does not say otherwise, nothing: its records are its codes.
        """
        return {}


def record_model(
    model: "nn.Module", layout: Layout, frames: "np.ndarray", actions: "np.ndarray | None"
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
    outputs: "Mapping[str, np.ndarray]",
    *,
    programs: Programs,
    precision: Precision,
) -> "tuple[dict[str, np.ndarray], CodeCount | None]":
    """What a graph should answer, and for an encoder of codes, how they compare with PyTorch's.

    Where an encoder picks another code, what else it gives is judged by the code it picked.

    Args:
        outputs: what it answered.
    """
    import numpy as np

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


def load_family(name: str) -> ModelFamily:
    """The family of that name.

    Raises:
        CheckpointError: there is none.
    """
    if name not in FAMILIES:
        raise CheckpointError(
            f"model family: got {name!r}, expected one of {', '.join(FAMILIES)}; "
            "a newer wmdeploy wrote it: upgrade"
        )
    module, _, attribute = FAMILIES[name].partition(":")
    family: ModelFamily = getattr(importlib.import_module(module), attribute)
    return family


def find_family(source: str) -> ModelFamily:
    """The family of a model directory, a checkpoint or a preset's name."""
    families = [load_family(name) for name in FAMILIES]
    return next((family for family in families if family.recognises(source)), families[-1])


def family_of(model: "nn.Module") -> ModelFamily:
    """The family of a model that has been loaded."""
    return load_family(str(model.family))


def is_preset(source: str) -> bool:
    """Whether a source is a preset's name, and no file or folder."""
    preset = any(source in load_family(name).presets for name in FAMILIES)
    return preset and not Path(source).exists()


def load_model(source: str | Path, seed: int = 0, remarks: list[str] | None = None) -> "nn.Module":
    """Load a model of any family; see `ModelFamily.load`.

    Raises:
        CheckpointError: no family can.
    """
    require("torch", extra="export", purpose="loading a model")
    if advice := not_the_folder(Path(source)):
        raise CheckpointError(advice)
    return find_family(str(source)).load(str(source), seed, remarks)


def load_bundled_model(manifest: Manifest, directory: Path) -> "nn.Module":
    """The model that a bundle carries in `directory`, which the caller has checked.

    Raises:
        BundleError: its sizes are not the manifest's.
        CheckpointError: the family is unknown, the manifest's sizes are no model's, or the model
            is damaged.
    """
    torch = require("torch", extra="export", purpose="loading a bundle's PyTorch model")
    family = load_family(manifest.family)
    model = family.load(str(directory), 0, None)
    with torch.device("meta"):  # shapes and types, no memory
        described = family.build(manifest.model)
    if family.facts(described).config != family.facts(model).config:
        raise BundleError(
            f"{directory.parent}: the model in it has other sizes than the manifest; export again"
        )
    return model
