"""A second model family, as small as one can be: a frame's token is the brightness of its parts.

The next token is a function of the mean of all tokens in the window; what the step keeps of the
past is their sum. It has one layout, which answers to both names, float32 only, and no actions.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wmdeploy.codes import CodeCount, Ties
from wmdeploy.errors import CheckpointError
from wmdeploy.families import Case, Deployment, Graph, ModelFacts, ModelFamily
from wmdeploy.manifest import BATCH, Layout, Precision, Shape, TensorSpec, Wiring

PARTS = 16  # N: a frame is cut into 4 x 4
LEVELS = 8  # codes are from 0 to 7
NEAR = 1e-4  # of a level: nearer to the border between two, rounding decides
FILE = "mean-pool.safetensors"


class MeanPool(nn.Module):
    family = "mean-pool"

    def __init__(self, size: int, context: int) -> None:
        super().__init__()
        self.size, self.context = size, context
        self.mix = nn.Linear(PARTS, PARTS)

    def levels(self, frames: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 -> (B, N) float32 in 0..LEVELS - 1, not rounded."""
        parts = frames.float().view(-1, 4, self.size // 4, 4, self.size // 4, 3)
        return parts.mean((2, 4, 5)).flatten(1) * ((LEVELS - 1) / 255)

    def following(self, total: Tensor, count: Tensor) -> Tensor:
        """The sum (B, N) of `count` (B,) tokens -> the next token (B, N), in [0, 1]."""
        return torch.sigmoid(self.mix(total / count[:, None]))

    def draw(self, token: Tensor) -> Tensor:
        """(B, N) -> (B, H, W, 3) uint8."""
        grey = token.view(-1, 4, 1, 4, 1, 1).expand(-1, 4, self.size // 4, 4, self.size // 4, 3)
        return (grey * 255).round().to(torch.uint8).reshape(-1, self.size, self.size, 3)


class Encoder(nn.Module):
    def __init__(self, model: MeanPool) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.model.levels(frames).round().to(torch.int64)
        return codes.float() / (LEVELS - 1), codes


class Prefill(nn.Module):
    def __init__(self, model: MeanPool) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        used = torch.arange(tokens.shape[1], device=tokens.device) < length[:, None]  # (B, S)
        total = (tokens * used[:, :, None]).sum(1)
        return self.model.following(total, length), total


class BaselinePrefill(Prefill):
    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(tokens, length)[0]


class Step(nn.Module):
    def __init__(self, model: MeanPool) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: Tensor, position: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        total = total + token
        return self.model.following(total, position + 1), total


class Decoder(nn.Module):
    def __init__(self, model: MeanPool) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: Tensor) -> Tensor:
        return self.model.draw(token)


class MeanPoolFamily(ModelFamily):
    name = "mean-pool"
    title = "mean of brightness"
    presets = ("mean-pool-16",)

    def recognises(self, source: str) -> bool:
        return source in self.presets or (Path(source) / FILE).is_file()

    def load(self, source: str, seed: int, remarks: list[str] | None) -> MeanPool:
        if source in self.presets:
            torch.manual_seed(seed)
            return MeanPool(16, 6).eval().requires_grad_(False)
        path = Path(source)
        model = self.build(json.loads((path / "sizes.json").read_text())["config"])
        model.load_state_dict(load_file(path / FILE))
        return model

    def build(self, config: dict[str, Any]) -> MeanPool:
        try:
            return MeanPool(**config["pool"]).eval().requires_grad_(False)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"model config: {error}") from None

    def save(self, model: MeanPool, directory: Path, notes: dict[str, Any]) -> None:
        document = {"config": self.facts(model).config, "notes": notes}
        (directory / "sizes.json").write_text(json.dumps(document))
        save_file(model.state_dict(), directory / FILE)

    def notes(self, source: str) -> dict[str, Any]:
        path = Path(source) / "sizes.json"
        found: dict[str, Any] = json.loads(path.read_text())["notes"] if path.is_file() else {}
        return found

    def facts(self, model: MeanPool) -> ModelFacts:
        return ModelFacts(
            image_size=model.size,
            num_actions=0,
            config={"pool": {"size": model.size, "context": model.context}},
            parameters={"all": sum(p.numel() for p in model.parameters())},
        )

    def deployment(self, model: MeanPool, layout: Layout, precision: Precision) -> Deployment:
        if precision != "fp32":
            raise CheckpointError(f"precision: got {precision}, expected fp32 for {self.title}")
        pixels: Shape = (BATCH, model.size, model.size, 3)
        token, total, following, new = (
            TensorSpec(name, "float32", (BATCH, PARTS))
            for name in ("token", "total", "next_token", "next_total")
        )
        frames, frame = (TensorSpec(name, "uint8", pixels) for name in ("frames", "frame"))
        codes = TensorSpec("codes", "int64", (BATCH, PARTS))
        window = TensorSpec("tokens", "float32", (BATCH, model.context, PARTS))
        length, position = (TensorSpec(name, "int64", (BATCH,)) for name in ("length", "position"))
        return Deployment(
            graphs={
                "encoder": lambda: Graph(Encoder(model).eval(), (frames,), (token, codes)),
                "prefill": lambda: Graph(
                    Prefill(model).eval(), (window, length), (following, total)
                ),
                "step": lambda: Graph(
                    Step(model).eval(), (token, position, total), (following, new)
                ),
                "decoder": lambda: Graph(Decoder(model).eval(), (token,), (frame,)),
            },
            wiring=self.wiring(model, cache=(("total", "next_total"),)),
        )

    def wiring(self, model: MeanPool, cache: tuple[tuple[str, str], ...]) -> Wiring:
        return Wiring(
            context=model.context,
            num_actions=0,
            frames="frames",
            encoded="token",
            codes="codes",
            window="tokens",
            length="length",
            window_actions=None,
            token="token",
            position="position",
            action=None,
            feedback="next_token",
            render=("next_token", "token"),
            frame="frame",
            cache=cache,
        )

    def baseline_deployment(self, model: MeanPool, precision: Precision) -> Deployment:
        graphs = self.deployment(model, "token", precision).graphs
        prefill = graphs["prefill"]()
        return Deployment(
            graphs={
                "encoder": graphs["encoder"],
                "prefill": lambda: Graph(
                    BaselinePrefill(model).eval(), prefill.inputs, prefill.outputs[:1]
                ),
                "decoder": graphs["decoder"],
            },
            wiring=self.wiring(model, cache=()),
        )

    @torch.inference_mode()
    def cases(
        self,
        model: MeanPool,
        layout: Layout,
        precision: Precision,
        frames: Tensor,
        actions: Tensor | None,
    ) -> dict[str, Case]:
        codes = model.levels(frames).round().to(torch.int64)
        tokens = codes.float() / (LEVELS - 1)
        window = tokens[torch.arange(model.context) % len(tokens)]  # (S, N)
        length = torch.tensor([model.context, model.context // 2])
        totals = torch.stack([window[:n].sum(0) for n in length])
        following = model.following(totals, length)
        latest = window[length - 1]

        def encoded(outputs: Any) -> dict[str, Tensor]:
            return {"token": outputs["codes"].float() / (LEVELS - 1), "codes": codes[:2]}

        def count_codes(outputs: Any) -> CodeCount:
            pair = codes[:2].numpy(), outputs["codes"].numpy()
            return self.find_ties(model, frames[:2].numpy(), *pair, precision).count

        predicted = {"next_token": following}
        return {
            "encoder": Case({"frames": frames[:2]}, encoded, count_codes),
            "prefill": Case(
                {"tokens": window.expand(2, -1, -1).contiguous(), "length": length},
                lambda outputs: {**predicted, "total": totals},
            ),
            "step": Case(
                {"token": latest, "position": length - 1, "total": totals - latest},
                lambda outputs: {**predicted, "next_total": totals},
            ),
            "decoder": Case({"token": following}, lambda outputs: {"frame": model.draw(following)}),
        }

    def find_ties(
        self,
        model: MeanPool,
        frames: np.ndarray,
        expected: np.ndarray,
        got: np.ndarray,
        precision: Precision,
    ) -> Ties:
        levels = model.levels(torch.tensor(frames)).numpy()
        differs = expected != got
        tied = differs & (np.abs(levels - (expected + got) / 2) < NEAR)
        wrong = int((differs & ~tied).sum())
        return Ties(tied, CodeCount(codes=differs.size, tied=int(tied.sum()), wrong=wrong))

    def encoded_change(
        self, model: MeanPool, before: np.ndarray, after: np.ndarray
    ) -> dict[str, np.ndarray]:
        return {"token": ((after - before) / (LEVELS - 1)).astype(np.float32)}


FAMILY = MeanPoolFamily()
