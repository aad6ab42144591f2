"""What happens to a model's state at each frame: a real one has come, or one is imagined."""

import torch
from torch import Tensor, nn

from wmdeploy.families.recurrent.network import RecurrentModel, one_hot


class Step(nn.Module):
    """What posterior and prior share."""

    def __init__(self, model: RecurrentModel) -> None:
        super().__init__()
        self.model = model
        self.dynamics = model.dynamics

    def vector(self, action: Tensor) -> Tensor:
        """(B,) int64 or (B, A) float32 -> (B, A) float32."""
        if count := self.model.config.num_actions:
            return one_hot(action, count)
        return action

    def draw(self, deter: Tensor, logits: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """The state, the reward, whether the episode goes on, and what was drawn from."""
        stoch = (logits + noise).argmax(-1)
        features = self.model.features(stoch, deter)
        return stoch, deter, self.model.reward(features), self.model.cont(features), logits


class Start(nn.Module):
    """The learned state in place of the given one, where no frame came before.

    It is float32 in float16 graphs, as any other state.
    """

    stoch: Tensor
    deter: Tensor

    def __init__(self, model: RecurrentModel) -> None:
        super().__init__()
        deter, stoch = model.dynamics.initial()
        self.register_buffer("stoch", stoch)  # (1, V)
        self.register_buffer("deter", deter)  # (1, D)

    def forward(self, first: Tensor, stoch: Tensor, deter: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(first, self.stoch, stoch), torch.where(first, self.deter, deter)


class Posterior(Step):
    """A real frame has come. Before the first one are a learned state and an action of zeros."""

    def __init__(self, model: RecurrentModel) -> None:
        super().__init__(model)
        self.start = Start(model)

    def forward(
        self,
        embed: Tensor,
        length: Tensor,
        stoch: Tensor,
        deter: Tensor,
        action: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, ...]:
        first = (length == 0)[:, None]
        stoch, deter = self.start(first, stoch, deter)
        deter = self.dynamics.move(stoch, deter, self.vector(action) * (~first).float())
        return self.draw(deter, self.dynamics.posterior(deter, embed), noise)


class Prior(Step):
    """A frame is imagined."""

    def forward(
        self, stoch: Tensor, deter: Tensor, action: Tensor, noise: Tensor
    ) -> tuple[Tensor, ...]:
        deter = self.dynamics.move(stoch, deter, self.vector(action))
        return self.draw(deter, self.dynamics.prior(deter), noise)
