"""Programs in words, as `wmdeploy inspect` shows them."""

import dataclasses
import io

import pytest
from rich.console import Console
from rich.table import Table

from wmdeploy.cli.programs import calls_table, row_table
from wmdeploy.families.reference.graphs import deployment
from wmdeploy.families.reference.world_model import WorldModel
from wmdeploy.programs.contract import Call, Noise, Programs, TensorSpec

MEMORY = TensorSpec("memory", "float32", ("B", 512))
CACHE = TensorSpec("cache", "float32", (2, "B", 8, 4))
COUNT = TensorSpec("count", "int64", ("B",))
LATENT = TensorSpec("latent", "float32", ("B", 4, 8, 8))
DIFFUSION = Programs(
    context=8,
    keep=1,
    least=2,
    action=TensorSpec("action", "float32", ("B", 6)),
    state=(MEMORY, CACHE, COUNT),
    records=(LATENT,),
    noise={"start": Noise("normal", (4, 8, 8)), "churn": Noise("normal", (16, 4, 8, 8))},
    outputs=(TensorSpec("reward", "float32", ("B",)),),
    encode=(Call("tokenizer", {"frames": "frame"}, {"new.latent": "latent"}),),
    absorb=(
        Call(
            "posterior",
            {"latent": "new.latent", "memory": "state.memory", "action": "action"},
            {"state.memory": "next_memory", "slot.cache@count": "entry"},
        ),
    ),
    predict=(
        Call("prior", {"memory": "state.memory", "noise": "noise.start"}, {"new.x": "x"}),
        Call(
            "denoise",
            {"x": "new.x", "churn": "noise.churn", "sigma": "index", "latents": "window.latent",
             "length": "length", "nothing": "zero"},
            {"new.x": "next_x"},
            times=16,
            start=1,
        ),
        Call("finish", {"x": "new.x"}, {"new.latent": "latent", "out.reward": "reward"}),
    ),
    render=(Call("decoder", {"latent": "newest.latent"}, {"frame": "frame"}),),
    undo=("memory",),
)  # fmt: skip


def shown(table: Table, width: int) -> list[list[str]]:
    """The words of each line: cells are at least two blanks or a rule apart."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    lines = console.export_text().replace("│", "  ").splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("layout", ["token", "latent"])
def test_reference_family_fits_any_terminal(
    micro_actions: WorldModel, width: int, layout: str
) -> None:
    programs = deployment(micro_actions, layout, "fp32").programs
    lines = shown(calls_table(programs), width)
    next_one = ["next_" + layout, f"the window: {layout}"]
    assert ["encode", "encoder", "frames", "the real frame", layout, "the window"] in lines
    assert ["predict", "step", layout, "the newest frame", *next_one] in lines
    assert ["refresh", "prefill", f"{layout}s", f"the window: {layout}", *next_one] in lines
    # one line for each input, none folded; of the prefill in the token layout outputs are more
    rows = sum(max(len(call.feeds), len(call.gives)) for _, call in programs.calls())
    body = [line for line in lines[3:] if line][: rows + 1]
    assert "encode: of each real frame" in body[rows]


def test_every_kind_of_source_and_target_has_words() -> None:
    lines = shown(calls_table(DIFFUSION), 120)
    for words in (
        ["absorb", "posterior", "latent", "the real frame", "next_memory", "the state: memory"],
        ["memory", "the state", "entry", "the state: entries of cache, from count"],
        ["action", "the frame before"],
        ["predict", "prior", "memory", "the state", "x", "a later call"],
        ["noise", "noise: start"],
        ["denoise x 16", "x", "an earlier call", "next_x", "a later call: x"],
        ["churn", "noise"],
        ["sigma", "run number, from 1"],
        ["latents", "the window: latent"],
        ["length", "the window"],
        ["nothing", "zeros"],
        ["finish", "x", "an earlier call", "latent", "the window"],
        ["reward", "output"],
        ["render", "decoder", "latent", "the newest frame", "frame", "the picture"],
        ["absorb: makes a real frame part of the state"],
    ):
        assert words in lines, words
    assert not any("refresh" in word for line in lines for word in line)  # there is none


def test_a_row_is_told_with_its_sizes() -> None:
    facts = {line[0]: line[1] for line in shown(row_table(DIFFUSION), 120) if len(line) > 1}
    assert facts == {
        "context": "8 frames",
        "full window": "starts again from the newest frame",
        "a reset takes": "at least 2 frames",
        "actions": "float32 (B, 6) for each frame",
        "state": "2.31 kB: memory, cache, count",  # 4·512 + 4·2·8·4 + 8 bytes
        "window": "9.22 kB: latent",  # 9 frames of 4·256 bytes
        "noise of a frame": "start: normal (4, 8, 8), churn: normal (16, 4, 8, 8)",
        "outputs": "reward",
        "taken back": "memory, when a real frame replaces a prediction",
    }


@pytest.mark.parametrize(
    ("context", "keep", "words"),
    [(8, 8, "slides by one frame"), (8, 3, "keeps the newest 3 frames"), (1, 1, None)],
)
def test_full_window_in_words(context: int, keep: int, words: str | None) -> None:
    programs = dataclasses.replace(DIFFUSION, context=context, keep=keep, least=1, undo=())
    facts = {line[0]: line[1] for line in shown(row_table(programs), 120) if len(line) > 1}
    assert facts.get("full window") == words and "taken back" not in facts
