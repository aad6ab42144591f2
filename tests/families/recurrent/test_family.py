"""Sizes, names, and checkpoints of the authors' code."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.families.recurrent.conftest import FLOATS
from wmdeploy.bundle import Bundle
from wmdeploy.errors import CheckpointError
from wmdeploy.families import family_of, load_family, load_model
from wmdeploy.families.convert import convert
from wmdeploy.families.recurrent.config import PRESETS, RecurrentConfig
from wmdeploy.families.recurrent.network import RecurrentModel
from wmdeploy.families.recurrent.steps import Start

# of NM512/dreamerv3-torch behind `_wm.`, at its default sizes with 18 actions
NORMS = {f"encoder._cnn.layers.{3 * i + 1}.norm": 32 * 2**i for i in range(4)}
NORMS |= {f"heads.decoder._cnn.layers.{3 * i + 1}.norm": 128 // 2**i for i in range(3)}
NORMS |= {f"dynamics._{name}_layers.1": 512 for name in ("img_in", "img_out", "obs_out")}
NORMS |= {"dynamics._cell.layers.GRU_norm": 3 * 512}
NORMS |= {f"heads.reward.layers.Reward_norm{i}": 512 for i in range(2)}
NORMS |= {f"heads.cont.layers.Cont_norm{i}": 512 for i in range(2)}
PUBLISHED = {
    "encoder._cnn.layers.0.weight": (32, 3, 4, 4),
    "encoder._cnn.layers.3.weight": (64, 32, 4, 4),
    "encoder._cnn.layers.6.weight": (128, 64, 4, 4),
    "encoder._cnn.layers.9.weight": (256, 128, 4, 4),
    "dynamics.W": (1, 512),
    "dynamics._img_in_layers.0.weight": (512, 32 * 32 + 18),
    "dynamics._cell.layers.GRU_linear.weight": (3 * 512, 512 + 512),
    "dynamics._img_out_layers.0.weight": (512, 512),
    "dynamics._obs_out_layers.0.weight": (512, 512 + 4096),
    "dynamics._imgs_stat_layer.weight": (1024, 512),
    "dynamics._imgs_stat_layer.bias": (1024,),
    "dynamics._obs_stat_layer.weight": (1024, 512),
    "dynamics._obs_stat_layer.bias": (1024,),
    "heads.decoder._cnn._linear_layer.weight": (4096, 1024 + 512),
    "heads.decoder._cnn._linear_layer.bias": (4096,),
    "heads.decoder._cnn.layers.0.weight": (256, 128, 4, 4),
    "heads.decoder._cnn.layers.3.weight": (128, 64, 4, 4),
    "heads.decoder._cnn.layers.6.weight": (64, 32, 4, 4),
    "heads.decoder._cnn.layers.9.weight": (32, 3, 4, 4),
    "heads.decoder._cnn.layers.9.bias": (3,),
    "heads.reward.layers.Reward_linear0.weight": (512, 1024 + 512),
    "heads.reward.layers.Reward_linear1.weight": (512, 512),
    "heads.reward.mean_layer.weight": (255, 512),
    "heads.reward.mean_layer.bias": (255,),
    "heads.cont.layers.Cont_linear0.weight": (512, 1024 + 512),
    "heads.cont.layers.Cont_linear1.weight": (512, 512),
    "heads.cont.mean_layer.weight": (1, 512),
    "heads.cont.mean_layer.bias": (1,),
} | {f"{name}.{part}": (width,) for name, width in NORMS.items() for part in ("weight", "bias")}
WORLD_MODEL, COMPILED = "_wm.", "_wm._orig_mod."


def agent(model: RecurrentModel, prefix: str = COMPILED, floats: bool = False) -> dict[str, Any]:
    """What the authors' code saves as latest.pt: the policy holds the world model again."""
    state = model.state_dict()
    saved = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    behavior = prefix.replace("_wm", "_task_behavior")
    saved |= {f"{behavior}_world_model.{name}": tensor for name, tensor in state.items()}
    saved[f"{behavior}actor.mean_layer.weight"] = torch.ones(model.config.actions, 16)
    if floats:
        saved[f"{behavior}actor.std_layer.weight"] = torch.ones(model.config.actions, 16)
    moments = {"model_opt": {"state": {0: {"exp_avg": torch.ones(3), "step": torch.ones(())}}}}
    return {"agent_state_dict": saved, "optims_state_dict": moments}


def converted(document: Any, folder: Path) -> Any:
    torch.save(document, folder / "latest.pt")
    convert(folder / "latest.pt", "recurrent", folder / "model")
    return load_model(folder / "model")


def changed(model: RecurrentModel, **tensors: Tensor | None) -> dict[str, Any]:
    """An agent with tensors of its world model changed, added or taken out; __ stands for a dot."""
    document = agent(model, WORLD_MODEL)
    saved = document["agent_state_dict"]
    for name, tensor in tensors.items():
        full = WORLD_MODEL + name.replace("__", ".")
        if tensor is None:
            del saved[full]
        else:
            saved[full] = tensor
    return document


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = load_family("recurrent").build(PRESETS["dreamer"])
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == PUBLISHED


def test_parameters_are_counted_on_meta() -> None:
    family = load_family("recurrent")
    with torch.device("meta"):
        model = family.build(PRESETS["dreamer"])
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    facts = family.facts(model)
    assert facts.parameters == {
        "all": 15_693_955,
        "encoder": 690_624,
        "dynamics": 5_785_088,
        "decoder": 6_985_667,
        "reward": 1_181_439,
        "cont": 1_051_137,
    }
    assert sum(torch.Size(shape).numel() for shape in PUBLISHED.values()) == 15_693_955
    assert (facts.image_size, facts.num_actions, facts.action_size) == (64, 18, 0)


def test_initial_weights_come_from_the_seed() -> None:
    first, again, other = (
        load_model("tiny", seed, family="recurrent").state_dict() for seed in (1, 1, 2)
    )
    name = "dynamics._cell.layers.GRU_linear.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    wanted = (2 / (128 + 192)) ** 0.5  # of the mean fan
    assert first[name].std().item() == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("prefix", [WORLD_MODEL, COMPILED])
def test_checkpoint_of_the_authors_is_converted(
    prefix: str, model: RecurrentModel, tmp_path: Path
) -> None:
    got = converted(agent(model, prefix), tmp_path)
    assert got.config == model.config
    state = got.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_a_policy_with_deviations_means_float_actions(
    floats_model: RecurrentModel, tmp_path: Path
) -> None:
    assert converted(agent(floats_model, floats=True), tmp_path).config == FLOATS


def test_other_checkpoints_are_refused_in_one_line(model: RecurrentModel, tmp_path: Path) -> None:
    other = load_model("tiny")
    stat = torch.zeros(60, model.config.hidden)
    mean = torch.zeros(1, model.config.units)
    cases = {
        "no tensor is part of _wm": {"model_state_dict": other.state_dict()},
        "dynamics.W is missing; expected a model with a learned": changed(model, dynamics__W=None),
        "expected n variables of n classes": changed(
            model, dynamics___imgs_stat_layer__weight=stat
        ),
        r'"heads.reward.mean_layer.weight": got shape \(1, 64\), expected \(255, 64\)': changed(
            model, heads__reward__mean_layer__weight=mean
        ),
        r'"dynamics.W": got shape \(3,\), expected more axes': changed(
            model, dynamics__W=torch.zeros(3)
        ),
        '"encoder._mlp.layers.0.weight" is not one of this model': changed(
            model, encoder___mlp__layers__0__weight=mean
        ),
        "the tensor 'heads.reward.mean_layer.weight' of the family recurrent is missing": changed(
            model, heads__reward__mean_layer__weight=None
        ),
        "image_size: got 4, expected 8": {
            "agent_state_dict": {
                name: tensor
                for name, tensor in agent(model)["agent_state_dict"].items()
                if "encoder" not in name or "layers.0." in name
            }
        },
    }
    for said, document in cases.items():
        with pytest.raises(CheckpointError, match=said) as error:
            converted(document, tmp_path)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({}, "got num_actions 0 and action_size 0, expected one of them"),
        ({"num_actions": 3, "action_size": 2}, "got num_actions 3 and action_size 2"),
        ({"num_actions": 3, "image_size": 96}, "image_size: got 96, expected 8, 16, 32"),
        ({"num_actions": 3, "image_size": 4}, "image_size: got 4"),
        ({"num_actions": 3, "image_size": 2048}, "image_size: got 2048"),
        ({"num_actions": -1}, "num_actions: got -1"),
        ({"num_actions": 3, "deter": 0}, "deter: got 0, expected from 1"),
        ({"num_actions": 3, "units": 2**15}, "units: got 32768"),
        ({"num_actions": 3, "cont_layers": 0}, "cont_layers: got 0"),
    ],
)
def test_sizes_that_no_model_has_are_refused(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        RecurrentConfig(**sizes)


def test_folding_copies_no_matrix_but_those_it_cuts(model: RecurrentModel) -> None:
    from wmdeploy.families.recurrent.fold import fold

    folded = fold(model)
    assert folded.dynamics._cell.layers[0].weight is model.dynamics._cell.layers[0].weight
    assert "Rows" not in repr(model) and repr(folded).count("Rows") == 4


def test_the_state_before_the_first_frame_is_float32_in_float16(model: RecurrentModel) -> None:
    family, (deter, stoch) = family_of(model), model.dynamics.initial()
    for deployed in (
        family.baseline_deployment(model, "fp16"),
        family.deployment(model, "default", "fp16"),
    ):
        start = deployed.graphs["posterior"]().module.start
        assert isinstance(start, Start)
        assert start.deter.dtype == torch.float32 and torch.equal(start.deter, deter)
        assert torch.equal(start.stoch, stoch)


class Operators(TorchDispatchMode):
    """Counts what runs under it, and the types that are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.joined: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        if func is torch.ops.aten.cat.default:
            self.joined |= {tensor.dtype for tensor in args[0]}
        return func(*args, **(kwargs or {}))


def test_the_baseline_joins_its_features_once(model: RecurrentModel) -> None:
    """Or it would be slower than the authors' code, and any backend look fast beside it."""
    c, family = model.config, family_of(model)
    stoch, deter = torch.zeros(1, c.variables).long(), torch.zeros(1, c.deter)
    noise = torch.zeros(1, c.variables, c.classes)
    given = (stoch, deter, torch.zeros(1).long(), noise)
    found = []
    for deployed in (
        family.baseline_deployment(model, "fp32"),
        family.deployment(model, "default", "fp32"),
    ):
        with Operators() as operators:
            deployed.graphs["prior"]().module(*given)
        found.append(operators.counts)
        assert operators.joined == {torch.float32}
    # the state before with the action, what comes of it with deter, and the state for both heads
    assert found[0]["cat"] == 3 and found[0]["eq"] == 3
    assert found[1]["cat"] == 1 and found[1]["eq"] == 1  # the GRU's, and the action


def test_bundles_hold_float32_at_every_border(bundle: Bundle, half: Bundle) -> None:
    for made in (bundle, half):
        graphs = made.manifest.graphs
        assert list(graphs) == ["encoder", "posterior", "prior", "decoder"]
        kinds = {s.dtype for graph in graphs.values() for s in (*graph.inputs, *graph.outputs)}
        assert kinds == {"float32", "int64", "uint8"}
    whole, small = (sum(g.weight_bytes for g in b.manifest.graphs.values()) for b in (bundle, half))
    assert small < 0.75 * whole
    assert family_of(load_model(bundle.path / "model")).name == "recurrent"
