"""What to train. Imports no torch, so that a command line loads at once."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from wmdeploy.clips.source import ReadOptions
from wmdeploy.errors import TrainingError
from wmdeploy.families.find import DEFAULT
from wmdeploy.files import real_path

VQVAE_SHARE = 0.7  # of the minutes that a training may take
# where the model goes, and how its training is logged and stored; not what it becomes
NOT_DECIDING = ("output", "checkpointing", "log")
# options of the reference family's stages; those of other families are in `stages`
REFERENCE_ONLY = (
    *("vqvae_steps", "temporal_steps", "vqvae_batch", "temporal_batch", "vqvae_rate"),
    *("temporal_rate", "changed_pixels", "l1", "self_fed", "vqvae"),
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train a world model.

    The same options and data give the same weights on the same machine with the same number of
    threads and processes, interrupted or not; `max_minutes`, once it ends a stage, makes them
    depend on the machine's speed.

    Attributes:
        data: folders of clips, at least one; together they hold at least two episodes.
        output: the model directory to write. While training, `<output>.train` lies beside it.
        family: of the model, by name.
        preset: sizes of the model, a key of the family's presets.
        stages: settings of the stages of other families than the reference family, such as
            {"denoiser.steps": 4000, "denoiser.batch": 16, "denoiser.rate": 5e-4}; the rest are the
            family's defaults. The next ten are of the reference family alone.
        vqvae_steps: optimizer steps of the first stage, at most.
        temporal_steps: optimizer steps of the second stage, at most.
        vqvae_batch: frames in a batch of the first stage, in pairs: an even number.
        temporal_batch: windows of S + 1 frames in a batch of the second stage.
        vqvae_rate: highest learning rate of the first stage.
        temporal_rate: highest learning rate of the second stage.
        changed_pixels: what a pixel that changes between two frames counts more than one that
            stands still, in the first stage.
        l1: share of the absolute error beside the squared one, in the first stage.
        self_fed: share of the latents given that are predictions, at the end of the second stage.
        vqvae: a model directory whose VQ-VAE is taken as it is, so that only the second stage runs.
        seed: of the first weights, the split of the clips and all that is drawn, 0 or more.
        actions: condition the transformer on the recorded actions, where the clips have them.
        validation: share of the episodes that is held out, between 0 and 1.
        checkpoint_every: steps from one checkpoint, and one look at held-out clips, to the next.
        patience: looks without a better one after which a stage ends; 0: never.
        max_minutes: of training in all, `VQVAE_SHARE` of them for the first stage, if it runs;
            reading and encoding clips and the last evaluation come on top.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        precision: "fp32"; "bf16" or "fp16" for products and convolutions, where the sums that
            need it stay in float32. fp16 needs a GPU.
        accumulate: batches in one optimizer step.
        checkpointing: compute activations again in the backward pass: less memory, more time.
        log: folder for TensorBoard's curves and pictures, or None.
        read: how the clips are read.

    Raises:
        TrainingError: a number is outside its range, or there is no data folder.
    """

    data: tuple[Path, ...]
    output: Path
    family: str = DEFAULT
    preset: str = "tiny"
    stages: Mapping[str, float] = field(default_factory=dict)
    vqvae_steps: int = 600
    temporal_steps: int = 4000
    vqvae_batch: int = 16
    temporal_batch: int = 16
    vqvae_rate: float = 6e-3
    temporal_rate: float = 1e-3
    changed_pixels: float = 6.0
    l1: float = 0.2
    self_fed: float = 0.5
    vqvae: Path | None = None
    seed: int = 0
    actions: bool = True
    validation: float = 0.1
    checkpoint_every: int = 200
    patience: int = 0
    max_minutes: float | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1
    checkpointing: bool = False
    log: Path | None = None
    read: ReadOptions = ReadOptions()

    def __post_init__(self) -> None:
        if not self.data:
            raise TrainingError("data: got no folder, expected at least one folder of clips")
        least = {
            "vqvae_steps": 1,
            "temporal_steps": 1,
            "vqvae_batch": 2,
            "temporal_batch": 1,
            "seed": 0,
            "checkpoint_every": 1,
            "patience": 0,
            "accumulate": 1,
        }
        for name, lowest in least.items():
            value = getattr(self, name)
            if value < lowest:
                raise TrainingError(f"{name}: got {value}, expected {lowest} or more")
        if self.vqvae_batch % 2:
            raise TrainingError(f"vqvae_batch: got {self.vqvae_batch}, expected an even number")
        for name in ("vqvae_rate", "temporal_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TrainingError(f"{name}: got {value}, expected a learning rate above 0")
        for name in ("changed_pixels", "l1"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"{name}: got {value}, expected a weight of 0 or more")
        if not 0 <= self.self_fed <= 0.5:
            raise TrainingError(f"self_fed: got {self.self_fed}, expected a share from 0 to 0.5")
        if not 0 < self.validation < 1:
            raise TrainingError(
                f"validation: got {self.validation}, expected a share between 0 and 1"
            )
        if self.max_minutes is not None and not 0 < self.max_minutes < float("inf"):
            raise TrainingError(f"max_minutes: got {self.max_minutes}, expected more than 0")
        self._check_family()

    def _check_family(self) -> None:
        for option in fields(self) if self.family != DEFAULT else ():
            if option.name in REFERENCE_ONLY and getattr(self, option.name) != option.default:
                raise TrainingError(
                    f"{option.name}: is of the family {DEFAULT}, got the family {self.family}; "
                    "leave it out, and choose its stages' settings with `stage`"
                )

    def deciding(self) -> dict[str, Any]:
        """The options that decide the weights, as JSON types; with others they would differ."""
        chosen = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in NOT_DECIDING
        }
        return {
            **chosen,
            "stages": dict(self.stages),
            "data": [str(real_path(folder)) for folder in self.data],
            "read": asdict(self.read),
            "vqvae": str(real_path(self.vqvae)) if self.vqvae else None,
        }
