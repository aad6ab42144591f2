"""The recurrent family, DreamerV3's world model. Importing this module imports no torch."""

from typing import TYPE_CHECKING

from wmdeploy.families.family import Deployment, ModelFacts, ModelFamily
from wmdeploy.families.recurrent.config import PRESETS, RecurrentConfig
from wmdeploy.manifest import Precision

if TYPE_CHECKING:
    from torch import Tensor

    from wmdeploy.families.recurrent.network import RecurrentModel


class RecurrentFamily(ModelFamily):
    """See `wmdeploy.families.ModelFamily`."""

    name = "recurrent"
    title = "recurrent state-space model"
    config = RecurrentConfig
    presets = PRESETS

    def build(self, config: RecurrentConfig) -> "RecurrentModel":
        from wmdeploy.families.recurrent.network import RecurrentModel

        return RecurrentModel(config)

    def facts(self, model: "RecurrentModel") -> ModelFacts:
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.parts()}
        config = model.config
        return ModelFacts(
            image_size=config.image_size,
            num_actions=config.num_actions,
            parameters={"all": sum(parts.values()), **parts},
            action_size=config.action_size,
        )

    def deployment(self, model: "RecurrentModel", layout: str, precision: Precision) -> Deployment:
        from wmdeploy.families.recurrent.fold import fold
        from wmdeploy.families.recurrent.graphs import deployment

        return deployment(fold(model), precision)

    def baseline_deployment(self, model: "RecurrentModel", precision: Precision) -> Deployment:
        from wmdeploy.families.recurrent.graphs import deployment

        return deployment(model, precision)

    def convert(self, tensors: "dict[str, Tensor]") -> "tuple[RecurrentConfig, dict[str, Tensor]]":
        from wmdeploy.families.recurrent.convert import convert

        return convert(tensors)
