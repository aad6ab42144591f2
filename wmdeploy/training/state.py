"""The state of an unfinished training, in a folder beside the model it will become.

`options.json` says what is trained, `state.pt` how far it is (the last checkpoint), and
`best.safetensors` has the weights that did best. Each exists whole or not at all.
Knows nothing of how a stage trains.
"""

import json
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from wmdeploy.errors import TrainingError
from wmdeploy.files import check_inside, open_regular, read_document, real_path, staged_file
from wmdeploy.locks import sole_writer

OPTIONS_FILE = "options.json"
STATE_FILE = "state.pt"
BEST_FILE = "best.safetensors"
SCHEMA = 2
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


@dataclass(kw_only=True)
class StageRecord:
    """How far one stage is, over all runs that it took.

    Attributes:
        step: optimizer steps done.
        images: frames trained on.
        seconds: time spent in the steps; `data_seconds` of them waiting for a batch.
        elapsed: the same with looks at held-out clips and checkpoints: what a budget counts.
        held_out: the loss on held-out batches when it was last computed; `best` the lowest so far.
        worse: how many times in a row it was not lower than that.
        ended: "" while running, then "steps", "time" or "patience"; "given" where it did not run.
    """

    step: Count = 0
    images: Count = 0
    seconds: Seconds = 0.0
    data_seconds: Seconds = 0.0
    elapsed: Seconds = 0.0
    held_out: float | None = None
    best: float | None = None
    worse: Count = 0
    ended: Literal["", "steps", "time", "patience", "given"] = ""


@dataclass
class TrainState:
    """What a checkpoint holds beside the weights.

    Attributes:
        finished: the stages that are over, by name.
        current: the stage after these.
        optimizers: their states in that stage, none at step 0; `scaler` is float16's.
    """

    finished: dict[str, StageRecord] = field(default_factory=dict)
    current: StageRecord = field(default_factory=StageRecord)
    optimizers: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, int | float] | None = None

    def next_stage(self, name: str) -> None:
        """The current stage, of that name, is over."""
        self.finished[name] = self.current
        self.current, self.optimizers, self.scaler = StageRecord(), [], None


class TrainFolder:
    """`<output>.train`: opened for one set of options, see `opened`."""

    def __init__(self, output: Path) -> None:
        output = real_path(output)
        self.path = output.with_name(f"{output.name}.train")

    def check(self) -> None:
        """Refuse, before any work, a folder that is not ours to write to.

        Raises:
            TrainingError: it is not the folder of a training.
            WmdeployError: it or a file in it is a link, or another process trains there.
        """
        for name in (OPTIONS_FILE, STATE_FILE, BEST_FILE):
            check_inside(self.path / name, self.path.parent)
        if self.path.exists() and not (self.path / OPTIONS_FILE).is_file() and not self._is_empty():
            raise TrainingError(
                f"{self.path}: is not the folder of an unfinished training (no {OPTIONS_FILE}); "
                "choose another output or remove it yourself"
            )
        if self.path.exists():
            with sole_writer(self.path):
                pass

    @contextmanager
    def opened(self, settings: dict[str, Any]) -> Iterator[None]:
        """Make the folder, or check that the one which is there belongs to these settings.

        Until the block ends no other process can open it.

        Args:
            settings: all that decides the weights, as JSON types.

        Raises:
            TrainingError: it belongs to others.
            WmdeployError: it cannot be written, or as `check`.
        """
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be created ({error.strerror})") from error
        with sole_writer(self.path):
            path = self.path / OPTIONS_FILE
            if path.is_file():
                self._compare(path, settings)
            else:
                with staged_file(path) as staged:
                    staged.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            yield

    def _compare(self, path: Path, settings: dict[str, Any]) -> None:
        try:
            stored = json.loads(read_document(path))
        except (OSError, ValueError, RecursionError) as error:
            raise TrainingError(f"{path}: cannot be read ({error}); remove {self.path}") from error
        if changes := differences(stored, settings):
            raise TrainingError(
                f"{self.path}: holds an unfinished training with other options ({changes}); "
                "pass the same options to go on, or remove that folder to start again"
            )

    def save(self, model: nn.Module, state: TrainState) -> None:
        """Replace the checkpoint.

        Raises:
            WmdeployError: it cannot be written.
        """
        document = {
            "schema": SCHEMA,
            "finished": {name: asdict(record) for name, record in state.finished.items()},
            "current": asdict(state.current),
            "optimizers": state.optimizers,
            "scaler": state.scaler,
            "model": model.state_dict(),
        }
        with staged_file(self.path / STATE_FILE) as staged, staged.open("wb") as file:
            try:
                torch.save(document, file)
            except RuntimeError as error:  # its own type for a full disk
                raise OSError(None, str(error)) from error

    def load(self, model: nn.Module, steps: Mapping[str, int]) -> TrainState:
        """Bring `model` to the last checkpoint; without one nothing changes.

        Args:
            steps: of each stage, in order.

        Raises:
            TrainingError: the checkpoint is damaged.
        """
        path = self.path / STATE_FILE
        if not path.exists():
            return TrainState()
        with self.readable_state():
            with open_regular(path) as file:
                document = torch.load(file, map_location="cpu", weights_only=True)
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']}, expected {SCHEMA}")
            model.load_state_dict(document["model"])
            return _state(document, steps)

    @contextmanager
    def readable_state(self) -> Iterator[None]:
        """Report whatever goes wrong with the checkpoint, in reading or in using it, in one way.

        Raises:
            TrainingError: it is damaged.
        """
        try:
            yield
        except (
            *(RuntimeError, OSError, EOFError, ValueError, TypeError, KeyError, AttributeError),
            *(pickle.UnpicklingError, msgspec.ValidationError),
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TrainingError(
                f"{self.path / STATE_FILE}: is damaged and cannot be resumed from ({reason}); "
                f"remove {self.path} and start again"
            ) from error

    def save_best(self, model: nn.Module) -> None:
        """Keep the weights that did best on held-out clips.

        Raises:
            WmdeployError: they cannot be written.
        """
        with staged_file(self.path / BEST_FILE) as staged:
            try:
                save_file(model.state_dict(), staged)
            except SafetensorError as error:  # its own type for a full disk
                raise OSError(None, str(error)) from error

    def load_best(self, model: nn.Module) -> None:
        """Bring `model` to the weights of `save_best`.

        Raises:
            TrainingError: they are missing or damaged.
        """
        path = self.path / BEST_FILE
        try:
            model.load_state_dict(load_file(path))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise TrainingError(
                f"{path}: is missing or damaged ({str(error).splitlines()[0]}); "
                f"remove {self.path} and start again"
            ) from error

    def _is_empty(self) -> bool:
        """Whether nothing is in it but dot-names, as a killed write of ours leaves them."""
        if not self.path.is_dir():
            return False
        return all(entry.name.startswith(".") for entry in self.path.iterdir())

    def remove(self) -> None:
        """Remove the folder, if it is one of ours."""
        if (self.path / OPTIONS_FILE).is_file():
            shutil.rmtree(self.path)


def _state(document: dict[str, Any], steps: Mapping[str, int]) -> TrainState:
    """What a checkpoint says, each value of its type and in its range.

    Raises:
        ValueError, KeyError, msgspec.ValidationError: one is not.
    """
    values = {name: document[name] for name in ("finished", "current", "optimizers", "scaler")}
    state = msgspec.convert(values, TrainState)
    field_names = {field.name for field in fields(StageRecord)}
    for record in (document["current"], *document["finished"].values()):
        if record.keys() != field_names:
            raise ValueError("a stage without all its figures")
    names = list(steps)
    if sorted(state.finished) != sorted(names[: len(state.finished)]):
        raise ValueError(f"the finished stages {', '.join(state.finished)}")
    rest = names[len(state.finished) :]
    records = {**state.finished, **({rest[0]: state.current} if rest else {})}
    for name, record in records.items():
        if record.step > steps[name]:
            raise ValueError(f"step {record.step} of {steps[name]}")
    return state


def differences(stored: Any, wanted: dict[str, Any]) -> str:
    """What two settings differ in, for an error message; "" if nothing."""
    if not isinstance(stored, dict):
        return f"got {type(stored).__name__}, expected an object"
    there, now = _flat(stored), _flat(wanted)
    return "; ".join(
        f"{name}: there {_short(there.get(name))}, now {_short(now.get(name))}"
        for name in {**there, **now}
        if there.get(name) != now.get(name)
    )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings within settings by "outer.inner"; one that is not there is as one that is None."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": within for key, within in inner.items()} or {name: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
