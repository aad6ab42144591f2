"""The state of an unfinished training, in a folder beside the model it will become.

`options.json` says what is trained, `state.pt` how far it is. Both exist whole or not at all.
Knows nothing of how a stage trains.
"""

import json
import pickle
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wmdeploy.errors import TrainingError
from wmdeploy.files import staged_file

OPTIONS_FILE = "options.json"
STATE_FILE = "state.pt"
SCHEMA = 1


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        finished: names of the stages that are over.
        step: steps done of the stage after these.
        optimizer: of that stage at that step, or None at step 0.
        seconds: time spent in the steps of each stage, over all runs.
    """

    finished: list[str] = field(default_factory=list)
    step: int = 0
    optimizer: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class TrainFolder:
    """`<output>.train`: opened for one set of options, see `open`."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f"{output.name}.train")

    def open(self, settings: dict[str, Any]) -> None:
        """Make the folder, or check that the one which is there belongs to these settings.

        Args:
            settings: all that decides the weights, as JSON types.

        Raises:
            TrainingError: it belongs to others, or is not such a folder.
            WmdeployError: it cannot be written.
        """
        path = self.path / OPTIONS_FILE
        if self.path.exists() and not path.is_file() and not self._is_empty():
            raise TrainingError(
                f"{self.path}: is no folder of an unfinished training (no {OPTIONS_FILE}); "
                "choose another output or remove it yourself"
            )
        if not path.is_file():
            with staged_file(path) as staged:
                staged.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path}: cannot be read ({error}); remove {self.path}") from error
        if told := differences(found, settings):
            raise TrainingError(
                f"{self.path}: holds an unfinished training with other options ({told}); "
                "pass the same options to go on, or remove that folder to start again"
            )

    def save(self, model: nn.Module, progress: Progress) -> None:
        """Replace the checkpoint.

        Raises:
            WmdeployError: it cannot be written.
        """
        document = {
            "schema": SCHEMA,
            "finished": progress.finished,
            "step": progress.step,
            "optimizer": progress.optimizer,
            "seconds": progress.seconds,
            "model": model.state_dict(),
        }
        with staged_file(self.path / STATE_FILE) as staged, staged.open("wb") as file:
            try:
                torch.save(document, file)
            except RuntimeError as error:  # its own type for a full disk
                raise OSError(None, str(error)) from error

    def load(self, model: nn.Module) -> Progress:
        """Bring `model` to the last checkpoint; without one nothing changes.

        Raises:
            TrainingError: the checkpoint is damaged.
        """
        path = self.path / STATE_FILE
        if not path.exists():
            return Progress()
        try:
            document = torch.load(path, map_location="cpu", weights_only=True)
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']}, expected {SCHEMA}")
            model.load_state_dict(document["model"])
            return Progress(
                finished=document["finished"],
                step=document["step"],
                optimizer=document["optimizer"],
                seconds=document["seconds"],
            )
        except (
            *(RuntimeError, OSError, EOFError, ValueError, TypeError, KeyError, AttributeError),
            pickle.UnpicklingError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TrainingError(
                f"{path}: is damaged and cannot be resumed from ({reason}); "
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


def differences(found: Any, wanted: dict[str, Any]) -> str:
    """What two settings differ in, for an error message; "" if nothing."""
    if not isinstance(found, dict):
        return f"got {type(found).__name__}, expected an object"
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    return "; ".join(
        f"{name}: there {_short(found.get(name))}, now {_short(wanted.get(name))}" for name in names
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
