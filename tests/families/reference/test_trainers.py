"""Checkpoints as other programs write them: wrapped, prefixed, in pieces, with objects beside."""

import argparse
import collections
import dataclasses
import json
import pathlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from tests.conftest import GOLDEN
from wmdeploy.cli import main
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import CheckpointError
from wmdeploy.families import load_model, save_model

State = dict[str, Tensor]
POSITIONS = "temporal_model.pos_encoding.pe"


@pytest.fixture(scope="session")
def state() -> State:
    """Names and tensors of the reference project's checkpoint. Do not write to them."""
    document = torch.load(GOLDEN / "best.pt", weights_only=True)
    return dict(document["model_state_dict"])


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def averaged(state: State) -> State:
    """Other weights, as an average over the training would be."""
    return {n: t if n == POSITIONS else t * 0.5 for n, t in state.items()}


def split(state: State, part: str) -> State:
    return {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(part)}


def compiled_inside(state: State) -> State:
    return {name.replace("vqvae.", "vqvae._orig_mod.", 1): t for name, t in state.items()}


class AttributeDict(dict[str, Any]):
    """As Lightning's, for hyper_parameters."""


@dataclasses.dataclass(slots=True)
class Config:
    rate: float = 1e-3


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "DDP": lambda s: {"model_state_dict": prefixed(s, "module.")},
    "compiled DDP": lambda s: {"model_state_dict": prefixed(s, "module._orig_mod.")},
    "compiled parts": lambda s: {"model_state_dict": compiled_inside(s)},
    "FSDP": lambda s: {"model": prefixed(s, "_fsdp_wrapped_module._orig_mod.")},
    "Lightning": lambda s: {
        "state_dict": {**prefixed(s, "net."), "lpips.weight": torch.zeros(3)},
        "hyper_parameters": AttributeDict(rate=1e-3, where=pathlib.PurePosixPath("/d")),
        "callbacks": collections.defaultdict(dict, {"Early": {"best": torch.tensor(1.0)}}),
    },
    "DeepSpeed": lambda s: {"module": s, "ds_version": "0.18", "optimizer": None},
    "model and EMA": lambda s: {"ema": averaged(s), "model": s},
    "shadow of parameters": lambda s: {
        "ema": {"decay": 0.99, "shadow": {n: t for n, t in s.items() if n != POSITIONS}},
        "model": s,
    },
    "AveragedModel": lambda s: {**prefixed(s, "module."), "n_averaged": torch.tensor(3)},
    "part by part": lambda s: {
        "vqvae": split(s, "vqvae"),
        "temporal_model": prefixed(split(s, "temporal_model"), "module."),
    },
    "with its optimizer": lambda s: {
        **s,
        "optimizer": torch.optim.AdamW([nn.Parameter(torch.zeros(2))]).state_dict(),
    },
    "in a tuple": lambda s: (3, {"state_dict": s}),
    "Parameters": lambda s: {"state_dict": {n: nn.Parameter(t) for n, t in s.items()}},
    "numpy": lambda s: {"params": {name: t.numpy() for name, t in s.items()}},
    "numpy, Fortran order": lambda s: {n: np.asfortranarray(t.numpy()) for n, t in s.items()},
    "numpy beside": lambda s: {
        "model_state_dict": s,
        "loss": np.float64(0.5),
        "curve": np.arange(3),
        "empty": np.zeros((0, 2)),
        "names": np.array(["a", None], dtype=object),
        "table": np.zeros(2, dtype=[("step", "i4")]),
    },
    "objects": lambda s: {
        "model_state_dict": s,
        "args": argparse.Namespace(out=pathlib.PosixPath("/d")),
        "config": Config(),
        "random": (random.getstate(), np.random.default_rng(0), torch.Generator()),
    },
    "a module beside": lambda s: {"net": nn.Linear(2, 2), "state_dict": s},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_weights_are_found_in_what_a_trainer_saved(
    tmp_path: Path, state: State, wrap: Callable[[State], Any]
) -> None:
    torch.save(wrap(state), tmp_path / "last.ckpt")
    found = load_model(tmp_path / "last.ckpt").state_dict()
    assert found.keys() == state.keys() - {POSITIONS}
    assert all(torch.equal(found[name], state[name]) for name in found)


@pytest.mark.parametrize(
    ("wrap", "told"),
    [
        ("plain", []),
        ("DDP", ["the weights are those of 'model_state_dict.module'"]),
        ("Lightning", ["those of 'state_dict.net'", "2 other tensors", "AttributeDict"]),
        ("model and EMA", ["those of 'model'", "holds other weights, too: ema; to load them"]),
        ("AveragedModel", ["those of 'module'", "left out: 1 other tensors, as 'n_averaged'"]),
        ("objects", ["not executed: objects of argparse.Namespace, "]),
    ],
)
def test_what_was_taken_and_left_out_is_told(
    tmp_path: Path, state: State, wrap: str, told: list[str]
) -> None:
    torch.save(WRAPPED[wrap](state), tmp_path / "last.pt")
    remarks: list[str] = []
    load_model(tmp_path / "last.pt", remarks=remarks)
    assert len(remarks) == len(told)
    assert all(part in remark for part, remark in zip(told, remarks, strict=True))


def test_commands_tell_which_weights_they_took(
    tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": prefixed(state, "model.")}, path)
    for arguments in (
        ["inspect", str(path)],
        ["rollout", str(path), str(SAMPLE_CLIP), "-o", str(tmp_path / "x.npz"), "--horizon", "1"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert f"note: {path}: the weights are those of 'state_dict.model'" in (
            capsys.readouterr().err
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("back", [False, True], ids=["as it is", "float32 again"])
def test_other_precisions_load(
    tmp_path: Path, state: State, dtype: torch.dtype, back: bool
) -> None:
    rounded = {name: tensor.to(dtype) for name, tensor in state.items()}
    torch.save({n: t.float() for n, t in rounded.items()} if back else rounded, tmp_path / "x.pt")
    found = load_model(tmp_path / "x.pt").state_dict()
    assert all(torch.equal(found[name], rounded[name].float()) for name in found)


@pytest.mark.parametrize("wrong", [0.01, -0.01])
def test_table_that_is_off_by_more_than_rounding_is_refused(
    tmp_path: Path, state: State, wrong: float
) -> None:
    torch.save({**state, POSITIONS: (state[POSITIONS] + wrong).bfloat16()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is not the sinusoidal table"):
        load_model(tmp_path / "x.pt")


def write_shards(state: State, folder: Path, suffix: str, save: Callable[..., None]) -> None:
    """Two files and their index, as accelerate and transformers write them."""
    stem = "pytorch_model" if suffix == "bin" else "model"
    names = sorted(state)
    halves = {f"{stem}-0000{i + 1}-of-00002.{suffix}": names[i::2] for i in range(2)}
    for file, part in halves.items():
        save({name: state[name].contiguous() for name in part}, folder / file)
    index = {name: file for file, part in halves.items() for name in part}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": index}))


FOLDERS: dict[str, Callable[[State, Path], object]] = {
    "safetensors": lambda s, f: save_file(s, f / "model.safetensors"),
    "bin": lambda s, f: torch.save(s, f / "pytorch_model.bin"),
    "safetensors in shards": lambda s, f: write_shards(s, f, "safetensors", save_file),
    "bin in shards": lambda s, f: write_shards(s, f, "bin", torch.save),
}


@pytest.mark.parametrize("write", FOLDERS.values(), ids=FOLDERS.keys())
@pytest.mark.parametrize("prefix", ["", "model."])
def test_folder_of_a_trainer_loads(
    tmp_path: Path, state: State, write: Callable[[State, Path], object], prefix: str
) -> None:
    write(prefixed(state, prefix), tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["WorldModel"]}')
    found = load_model(tmp_path).state_dict()
    assert all(torch.equal(found[name], state[name]) for name in found)


def test_lone_safetensors_file_loads(tmp_path: Path, state: State) -> None:
    save_file(prefixed(state, "module."), tmp_path / "ema.safetensors")
    found = load_model(tmp_path / "ema.safetensors").state_dict()
    assert all(torch.equal(found[name], state[name]) for name in found)


def test_weights_of_our_own_directory_ask_for_the_directory(tmp_path: Path) -> None:
    save_model(load_model(GOLDEN / "best.pt"), tmp_path / "model")
    with pytest.raises(CheckpointError, match=f"give the model directory .* {tmp_path}/model$"):
        load_model(tmp_path / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("[]", "is no index of shards"),
        ('{"weight_map": [1]}', "is no index of shards"),
        ('{"weight_map": {"a": "../x.bin"}}', "names the shard '../x.bin', which is no file"),
        ('{"weight_map": {"a": "gone.bin"}}', "'gone.bin', .*copy all shards into one folder"),
    ],
)
def test_wrong_index_is_explained(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(2, 2), "a whole module (torch.nn.modules.linear.Linear), which is code; it was"),
        ({"model": nn.Linear(2, 2)}, "save it again as {'model_state_dict': model.state_dict()}"),
        (argparse.Namespace(a=1), "holds objects of argparse.Namespace and no weights"),
        ({"m": {"conv.weight": torch.zeros(2)}}, "tensors have names such as 'm.conv.weight'"),
    ],
)
def test_what_is_in_the_way_is_named(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_model(tmp_path / "x.pt")


def test_file_of_an_old_torch_names_what_is_in_the_way(tmp_path: Path, state: State) -> None:
    document = {"model_state_dict": state, "args": argparse.Namespace(rate=1e-3)}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(document, tmp_path / "args.pt", _use_new_zipfile_serialization=False)
    load_model(tmp_path / "old.pt")
    with pytest.raises(CheckpointError, match=r"plain values \(argparse.Namespace\)"):
        load_model(tmp_path / "args.pt")


def test_torchscript_is_told(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is TorchScript, which is code; it was not executed"):
        load_model(tmp_path / "x.pt")


def test_folder_of_other_checkpoints_is_told(tmp_path: Path, state: State) -> None:
    (tmp_path / "lightning").mkdir()
    torch.save(state, tmp_path / "lightning" / "epoch=3.ckpt")
    with pytest.raises(CheckpointError, match="it holds a checkpoint, give that: .*epoch=3.ckpt$"):
        load_model(tmp_path / "lightning")
    distributed.checkpoint.save({"model": state}, checkpoint_id=tmp_path / "sharded")
    with pytest.raises(CheckpointError, match="dcp_to_torch .*sharded model.pt$"):
        load_model(tmp_path / "sharded")


def test_tensor_larger_than_its_file_is_refused(tmp_path: Path, state: State) -> None:
    name = "temporal_model.latent_proj.weight"
    wide = torch.zeros(1).expand(state[name].shape)
    torch.save({**state, name: wide}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=rf'"{name}": got shape .* strides \(0, 0\)'):
        load_model(tmp_path / "x.pt")


def test_tensors_of_one_storage_are_refused(tmp_path: Path, state: State) -> None:
    one = torch.zeros(max(tensor.numel() for tensor in state.values()))
    shared = {n: one[: t.numel()].view(t.shape) for n, t in state.items() if n != POSITIONS}
    torch.save({**shared, POSITIONS: state[POSITIONS]}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="its tensors share memory"):
        load_model(tmp_path / "x.pt")


def test_positions_are_computed_only_where_the_table_has_their_size(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a table of 256 KB would have one of 16 GiB computed beside it."""
    wide = {"temporal_model.latent_proj.weight": torch.zeros(2**16, 4)}
    torch.save({**state, **wide, POSITIONS: torch.zeros(1, 2**16, 1)}, tmp_path / "x.pt")
    monkeypatch.delattr("wmdeploy.families.reference.reference.sinusoidal_positions")
    with pytest.raises(CheckpointError, match="is not the sinusoidal table"):
        load_model(tmp_path / "x.pt")


def test_dictionaries_that_hold_each_other_are_refused(tmp_path: Path) -> None:
    document: dict[str, Any] = {}
    document["a"] = document["b"] = [document, document]
    torch.save(document, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="expected a dict with 'model_state_dict'"):
        load_model(tmp_path / "x.pt")
