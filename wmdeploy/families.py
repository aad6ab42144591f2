"""What the rest of wmdeploy asks of a model family, and the one dict of families.

A family is a kind of model: its modules, its files, its four graphs, what they should answer. All
else treats a model as an `nn.Module` that it does not look into, and asks its family:

    model = load_model("models/pong")
    deployment = family_of(model).deployment(model, "token", "fp32")

Importing this module imports no torch and no family.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmdeploy.errors import BundleError, CheckpointError
from wmdeploy.manifest import Layout, Manifest, Precision, TensorSpec, Wiring, not_the_folder

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from wmdeploy.codes import CodeCount, Ties

# Each value is "module:object"; the object is a ModelFamily of that name. They are asked in this
# order whether they recognise a source. The last one is asked for what none recognises, and says
# what is wrong with it.
FAMILIES = {
    "vqvae-transformer": "wmdeploy.models.family:FAMILY",
}
GRAPHS = ("encoder", "prefill", "step", "decoder")


@dataclass(frozen=True)
class Graph:
    """One module with the names, dtypes and shapes of what it takes and gives, in order."""

    module: "nn.Module"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Deployment:
    """What exporters and engines run of a model: its graphs, built one by one, and their wiring."""

    graphs: dict[str, Callable[[], Graph]]
    wiring: Wiring


@dataclass(frozen=True)
class Case:
    """One run of one graph, on the CPU.

    Attributes:
        feeds: by input name, in the graph's own dtypes.
        expected: a function of the graph's own outputs: where an encoder picks another code than
            PyTorch, its token is judged by the code it picked. The values are float32, or integers.
        count_codes: of an encoder: which of such codes tie and which are wrong.
    """

    feeds: dict[str, "Tensor"]
    expected: Callable[[Mapping[str, "Tensor"]], dict[str, "Tensor"]]
    count_codes: Callable[[Mapping[str, "Tensor"]], "CodeCount"] | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What anyone may know of a model.

    Attributes:
        image_size: height and width of its frames, in pixels.
        num_actions: 0, or its actions are integers from 0 to num_actions - 1.
        config: its sizes as JSON types, by part and name; a bundle's manifest holds it.
        parameters: how many trainable values it has, in all ("all") and by part.
    """

    image_size: int
    num_actions: int
    config: dict[str, dict[str, Any]]
    parameters: dict[str, int]


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
        """The four graphs, `GRAPHS`, and their wiring.

        Each graph is built when it is asked for, and may share the model's weights. The contract
        of the graphs is in `wmdeploy.models.graphs`.
        """

    @abstractmethod
    def baseline_deployment(self, model: Any, precision: Precision) -> Deployment:
        """The model as its authors run it, with an empty cache and no step graph.

        In fp32 it is what every backend is compared with.
        """

    @abstractmethod
    def cases(
        self,
        model: Any,
        layout: Layout,
        precision: Precision,
        frames: "Tensor",
        actions: "Tensor | None",
    ) -> dict[str, Case]:
        """One case for each graph, with at least two rows; what is expected is float32's.

        Args:
            model: float32, on the CPU.
            frames: (T, H, W, 3) uint8, T >= 2.
            actions: (T,) int64 for a model with actions, else None.
        """

    @abstractmethod
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
        """

    @abstractmethod
    def encoded_change(
        self, model: Any, before: "np.ndarray", after: "np.ndarray"
    ) -> "dict[str, np.ndarray]":
        """By how much the encoder's other output changes with a frame's codes, (N,) int64 each.

        Codes are given as `before` where they are the same; those that differ are codes of the
        model on both sides.

        Returns:
            By the output's name in each layout: float32, of one row of that output.
        """


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
    import torch

    family = load_family(manifest.family)
    model = family.load(str(directory), 0, None)
    with torch.device("meta"):  # shapes and types, no memory
        described = family.build(manifest.model)
    if family.facts(described).config != family.facts(model).config:
        raise BundleError(
            f"{directory.parent}: the model in it has other sizes than the manifest; export again"
        )
    return model
