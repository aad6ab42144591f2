"""What the rest of wmdeploy asks of a model family.

A family is a kind of model: its network, its files, its graphs and programs. All else treats a
model as an `nn.Module` that it does not look into, and asks its family. A plugin is a subclass of
`ModelFamily`; docs/families/your-own.md makes one of 60 lines.

Importing this module imports no torch.
"""

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wmdeploy.errors import CheckpointError, TrainingError
from wmdeploy.manifest import Precision
from wmdeploy.programs.contract import Programs, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from wmdeploy.codes import Ties
    from wmdeploy.training.plan import Distillation, Part, Training


@dataclass(frozen=True)
class Graph:
    """One module with the names, dtypes and shapes of what it takes and gives, in order."""

    module: "nn.Module"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def dynamic_shapes(self, batch: object) -> tuple[object, ...]:
        """The axis of the batch in each input, as torch.export asks: `*name` takes one entry."""
        axes = tuple({spec.batch_axis: batch} for spec in self.inputs)
        parameters = inspect.signature(self.module.forward).parameters.values()
        alone = sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)
        return axes if alone == len(parameters) else (*axes[:alone], axes[alone:])

    def operations(self) -> int:
        """Of one run at batch 1; a multiply and an add count as two."""
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.utils.flop_counter import FlopCounterMode

        weights = [*self.module.parameters(), *self.module.buffers()]
        device = weights[0].device if weights else torch.device("cpu")
        with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
            feeds = [
                torch.ones(spec.sizes(1), dtype=getattr(torch, spec.dtype), device=device)
                for spec in self.inputs
            ]
            with FlopCounterMode(display=False) as counter:
                self.module(*feeds)
        return int(counter.get_total_flops())


@dataclass(frozen=True)
class Deployment:
    """What exporters and engines run of a model: its graphs, built one by one, and its programs."""

    graphs: dict[str, Callable[[], Graph]]
    programs: Programs

    def with_decoder(self, decoder: str) -> "Deployment":
        """The same with one decoder, see `Programs.rendering`, and the graphs that are called then.

        Raises:
            WmdeployError: the model has no such decoder.
        """
        programs = self.programs.rendering(decoder)
        called = programs.graphs()
        return Deployment({n: build for n, build in self.graphs.items() if n in called}, programs)

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
        parameters: how many trainable values it has, in all ("all") and by part.
        action_size: 0, or its actions are vectors of so many floats.
    """

    image_size: int
    num_actions: int
    parameters: dict[str, int]
    action_size: int = 0


class ModelFamily(ABC):
    """One kind of model.

    A model is an `nn.Module` that `build` gave, with two attributes: `config`, its sizes, and, of
    its class, `family`, the family's name.

    Attributes:
        name: of the family: lower case letters, digits and dashes. Manifests and model directories
            hold it.
        title: its name for people; exported graphs carry it.
        config: the frozen dataclass of a model's sizes, of JSON types. Its `__post_init__` raises
            CheckpointError for sizes that no model has: files of strangers are read into it.
        presets: sizes by name; a source that is no file has weights drawn from a seed.
        layouts: ways to cut the model into graphs, the default first; of one model all give the
            same frames.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    config: ClassVar[type]
    presets: ClassVar[Mapping[str, Any]] = {}
    layouts: ClassVar[tuple[str, ...]] = ("default",)

    @abstractmethod
    def build(self, config: Any) -> "nn.Module":
        """A model of these sizes, with weights drawn by PyTorch's generator.

        They are those of its training, or larger ones: presets are compared and timed with them,
        and zeros or nearly uniform logits would hide errors. Also called under
        `torch.device("meta")`, where a model takes no memory.
        """

    @abstractmethod
    def facts(self, model: Any) -> ModelFacts:
        """Its sizes, of a model on any device, `meta` included."""

    @abstractmethod
    def deployment(self, model: Any, layout: str, precision: Precision) -> Deployment:
        """The graphs that are exported, and the programs that call them.

        Each graph is built when it is asked for, and may share the model's weights. The contract
        is in `wmdeploy.programs.contract`.

        Raises:
            CheckpointError: the model has no such precision.
        """

    @abstractmethod
    def baseline_deployment(self, model: Any, precision: Precision) -> Deployment:
        """The model as its authors run it, as graphs and programs of its own.

        In fp32 it is what every backend is compared with. A graph that is also among those of
        `deployment`, by the same name, takes the same there.
        """

    def constants(self, model: Any) -> None:  # noqa: B027 (most have none)
        """Fill what no file holds, such as a table of positions, once weights have been loaded."""

    def convert(self, tensors: "dict[str, Tensor]") -> "tuple[Any, dict[str, Tensor]]":
        """Sizes and weights of a model that its authors' code saved, for `wmdeploy convert`.

        Args:
            tensors: by name, with all keys that lead there: "agent.world_model.head.weight".

        Returns:
            A `config`, and the tensors of `build(config).state_dict()`.

        Raises:
            CheckpointError: it is no model of this family, or of sizes that none has.
            KeyError: a tensor is missing.
        """
        raise CheckpointError(
            f"family {self.name}: it reads no checkpoints of other programs; save "
            "model.state_dict() as model.safetensors beside a config.json"
        )

    def training(self) -> "Training":
        """How `wmdeploy train` trains its models. Imported here, as training imports families.

        Raises:
            TrainingError: they are not trained here.
        """
        raise TrainingError(
            f"family {self.name}: its models are not trained here; train them with their authors' "
            "code, and read the checkpoint with `wmdeploy convert`"
        )

    def distillation(self, part: "Part") -> "Distillation":
        """How `wmdeploy distill` makes a student of a part. Imported here, as `training` is.

        Raises:
            TrainingError: it makes none of this family.
        """
        raise TrainingError(
            f"family {self.name}: its models have no students here; `wmdeploy distill` is for "
            "models of the family vqvae-transformer"
        )

    def load(self, source: str, seed: int, remarks: list[str] | None) -> "nn.Module":
        """A model in float32 on the CPU, in evaluation mode, without gradients.

        Args:
            source: a preset's name, or a model directory (see `wmdeploy.families.directory`).
            seed: of a preset's weights.
            remarks: gets a line for each thing that a user should know.

        Raises:
            CheckpointError: it is none of this family's, is damaged, or has weights that are not
                finite.
        """
        from wmdeploy.families.directory import load_directory

        path = Path(source)
        if source in self.presets and not path.exists():
            return self.initialized(self.presets[source], seed)
        if path.is_file():
            raise CheckpointError(
                f"{path}: is a file, expected a model directory of the family {self.name}; from a "
                f"checkpoint of its authors `wmdeploy convert` makes one"
            )
        if not path.exists():
            raise CheckpointError(
                f"model {source!r}: no such directory or preset; expected a model directory of the "
                f"family {self.name}, or one of its presets: {', '.join(self.presets) or 'none'}"
            )
        return load_directory(self, path)

    def initialized(self, config: Any, seed: int) -> "nn.Module":
        """A model of these sizes in evaluation mode, its weights drawn from a seed."""
        import torch

        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            model = self.build(config)
        self.constants(model)
        return model.eval().requires_grad_(False)

    def save(self, model: Any, directory: Path, notes: dict[str, Any]) -> None:
        """Write what `load` takes into a directory that the caller stages.

        Raises:
            OSError: it cannot be written.
        """
        from wmdeploy.families.directory import write_model_files

        write_model_files(self, model, directory, notes)

    def sizes(self, model: Any) -> dict[str, Any]:
        """Its `config` as JSON types; a bundle's manifest holds it."""
        return dataclasses.asdict(model.config)

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
