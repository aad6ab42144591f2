"""A token model as a plain loop: no session, no cache, the whole sequence for every token."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wmdeploy.families.tokens.network import TokensModel
from wmdeploy.programs.contract import Noise
from wmdeploy.programs.noise import draw

SEED = 7


class PlainRollout:
    """One row, by the names of tensors alone.

    Args:
        stream: of the noise, as a session numbers its rows.
    """

    def __init__(self, model: TokensModel, stream: int = 0) -> None:
        self.weights = model.state_dict()
        self.sizes, self.stream, self.clock = model.config, stream, 0
        self.k = self.sizes.tokenizer.tokens
        self.sequence: list[tuple[str, int]] = []  # ("token", 5) or ("action", 2)
        self.tokens: list[int] = []

    def take_in(self, tokens: list[int], action: int | None = None) -> None:
        """A real frame, and the action that led to it."""
        if action is not None:
            self.restart_if_full()
            self.sequence.append(("action", action))
        self.sequence += [("token", token) for token in tokens]
        self.tokens, self.clock = list(tokens), self.clock + 1

    def predict(self, action: int) -> tuple[list[int], float, int]:
        """Tokens, reward and end of the next frame."""
        self.restart_if_full()
        self.sequence.append(("action", action))
        classes = self.sizes.tokenizer.codebook_size
        obs = self.noise("obs", (self.k, classes))
        hidden = self.hidden()
        reward = int((self.head("rewards", hidden[-1]) + self.noise("reward", (3,))).argmax()) - 1
        end = int((self.head("ends", hidden[-1]) + self.noise("end", (2,))).argmax())
        self.tokens = []
        for at in range(self.k):
            logits = self.head("observations", self.hidden()[-1])
            self.tokens.append(int((logits + obs[at]).argmax()))
            self.sequence.append(("token", self.tokens[-1]))
        self.clock += 1
        return self.tokens, float(reward), end

    def forced_logits(self) -> Tensor:
        """(K, classes): of the newest frame's tokens, given those before each."""
        return self.head("observations", self.hidden()[-self.k - 1 : -1])

    def restart_if_full(self) -> None:
        """No room for an action and K tokens: the newest frame alone stays, as authors do it."""
        if len(self.sequence) + self.k + 1 > self.sizes.positions:
            self.sequence = [("token", token) for token in self.tokens]

    def noise(self, name: str, shape: tuple[int, ...]) -> Tensor:
        drawn = draw(Noise("gumbel", shape), name, SEED, self.stream, self.clock)
        return torch.from_numpy(np.asarray(drawn))

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias)

    def head(self, name: str, hidden: Tensor) -> Tensor:
        before = f"world_model.head_{name}.head_module"
        return self.linear(f"{before}.2", self.linear(f"{before}.0", hidden).relu())

    def hidden(self) -> Tensor:
        """(n, D) of the whole sequence."""
        tables = "world_model.embedder.embedding_tables"
        rows = [
            self.weights[f"{tables}.{0 if kind == 'action' else 1}.weight"][value]
            for kind, value in self.sequence
        ]
        x = torch.stack(rows) + self.weights["world_model.pos_emb.weight"][: len(rows)]
        heads = self.sizes.transformer.heads
        for layer in range(self.sizes.transformer.layers):
            block = f"world_model.transformer.blocks.{layer}"
            normed = self.norm(f"{block}.ln1", x)
            q, k, v = (
                self.linear(f"{block}.attn.{part}", normed)
                .unflatten(1, (heads, -1))
                .transpose(0, 1)
                for part in ("query", "key", "value")
            )
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.linear(f"{block}.attn.proj", attended.transpose(0, 1).flatten(1))
            inner = F.gelu(self.linear(f"{block}.mlp.0", self.norm(f"{block}.ln2", x)))
            x = x + self.linear(f"{block}.mlp.2", inner)
        return self.norm("world_model.transformer.ln_f", x)
