"""Model directories of any family, and what of a plugin an export depends on."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.families import mean_pool
from tests.families.mean_pool import MeanPoolFamily
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.errors import CheckpointError, FamilyError
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import load_family, load_model, save_model, use_family
from wmdeploy.families.convert import convert
from wmdeploy.families.directory import load_directory, write_model_files
from wmdeploy.families.find import VARIABLE

POOL = Path(mean_pool.__file__).read_text()
NAMED = ("--family", "my_pool:MeanPoolFamily")


@dataclass(frozen=True)
class Sizes:
    width: int = 4


class Odd(nn.Module):
    """Weights as models have them: tied, not contiguous, with counts that are integers."""

    family = "odd"

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(3, config.width)
        self.head = nn.Linear(config.width, 3, bias=False)
        self.head.weight = self.embedding.weight
        self.conv = nn.Conv2d(4, 4, 3)
        self.conv.weight.data = self.conv.weight.data.contiguous(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm1d(config.width)


class OddFamily(MeanPoolFamily):
    name = "odd"
    config = Sizes  # type: ignore[assignment]

    def build(self, config: Any) -> Any:
        return Odd(config)


def test_tied_and_counting_weights_come_back(tmp_path: Path) -> None:
    family, model = OddFamily(), Odd(Sizes())
    model.norm(torch.randn(5, 4))  # one batch is counted
    write_model_files(family, model, tmp_path)
    again = load_directory(family, tmp_path).state_dict()
    assert again["norm.num_batches_tracked"] == 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(again[name], tensor), name


def test_integers_are_no_weights(tmp_path: Path) -> None:
    family, model = OddFamily(), Odd(Sizes())
    write_model_files(family, model, tmp_path)
    path = tmp_path / "model.safetensors"
    state: dict[str, Tensor] = load_file(path)
    state["conv.bias"] = torch.ones(4, dtype=torch.int64)
    save_file(state, path)
    with pytest.raises(CheckpointError, match="conv.bias.*int64, expected finite floats"):
        load_directory(family, tmp_path)


def test_a_directory_of_another_family_is_refused(tmp_path: Path) -> None:
    save_model(load_model("tiny"), tmp_path / "model")
    with pytest.raises(CheckpointError, match="of the family vqvae-transformer, expected odd"):
        load_directory(OddFamily(), tmp_path / "model")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tinny", "no such directory or preset; .* its presets: diamond, tiny"),
        ("model.pt", "is a file, expected a model directory .* `wmdeploy convert` makes one"),
    ],
)
def test_what_is_no_model_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({}, "model.pt")
    with pytest.raises(CheckpointError, match=message):
        load_model(source, family="diffusion")


def test_a_folder_without_weights_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="expected one of model.safetensors, "):
        convert(tmp_path / "empty", "tokens", tmp_path / "model")
    with pytest.raises(CheckpointError, match="need no conversion; export it as it is"):
        torch.save({"a": torch.ones(1)}, tmp_path / "best.pt")
        convert(tmp_path / "best.pt", "vqvae-transformer", tmp_path / "model")
    torch.save({"a": {"w": torch.ones(1)}, "module.a.w": torch.ones(1)}, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match='holds the tensor "a.w" twice'):
        convert(tmp_path / "two.pt", "tokens", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, module: str) -> str:
    """Use the plugin of this text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, os.environ.get(VARIABLE, ""))
    Path(f"{module}.py").write_text(text)
    return use_family(f"{module}:MeanPoolFamily")


def test_a_plugin_does_not_take_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = POOL.replace('name = "mean-pool"', 'name = "tokens"')
    with pytest.raises(FamilyError, match="its name is 'tokens', as that of wmdeploy.families.to"):
        named(tmp_path, monkeypatch, text, "pool_tokens")
    assert type(load_family("tokens")).__name__ == "TokensFamily"


@pytest.mark.parametrize("lacking", ["name", "title", "config"])
def test_a_plugin_that_lacks_an_attribute_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    lines = POOL.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("class MeanPoolFamily"))
    kept = [*lines[:start], *(x for x in lines[start:] if not x.startswith(f"    {lacking} = "))]
    with pytest.raises(FamilyError, match=f"it has no '{lacking}', expected a name"):
        named(tmp_path, monkeypatch, "\n".join(kept), f"pool_without_{lacking}")


def test_an_export_depends_on_the_code_of_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = named(tmp_path, monkeypatch, POOL, "pool_that_changes")
    options = ExportOptions(
        source="mean-pool-16", family=family, output=tmp_path / "bundle", clip=SAMPLE_CLIP
    )
    assert export_bundle(options)[1] and not export_bundle(options)[1]
    with Path("pool_that_changes.py").open("a") as file:
        file.write("# changed\n")
    assert export_bundle(options)[1]


def test_the_default_family_may_be_named(tmp_path: Path) -> None:
    options = ExportOptions(source="tiny", output=tmp_path / "bundle", clip=SAMPLE_CLIP)
    assert export_bundle(options)[1]
    by_name = dataclasses.replace(options, family="vqvae-transformer")
    assert not export_bundle(by_name)[1]
