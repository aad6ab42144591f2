"""Options that verbs share: one name, one meaning, one parser."""

import inspect
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wmdeploy import cli
from wmdeploy.cli import options
from wmdeploy.engines.base import BACKENDS
from wmdeploy.errors import WmdeployError

COMMANDS = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def test_lists_repeat_and_take_commas() -> None:
    given = ["ort-cpu, eager", "compile", "eager"]
    assert options.names("--backend", given, BACKENDS) == ("ort-cpu", "eager", "compile")
    assert options.names("--backend", None, BACKENDS) == tuple(BACKENDS)
    assert options.numbers("--batch", ["1,2", "8"]) == (1, 2, 8)
    assert options.numbers("--batch", None) == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["ort-cpuu"], r"--backend: got 'ort-cpuu', expected one of eager, .*ort-cpu"),
        (["ort-cpu,"], r"--backend: got '', expected one of"),
    ],
)
def test_unknown_names_are_refused(values: list[str], message: str) -> None:
    with pytest.raises(WmdeployError, match=message):
        options.names("--backend", values, BACKENDS)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(WmdeployError, match="--batch: got '1,two', expected numbers such as 1,2,4"):
        options.numbers("--batch", ["1,two"])


def test_one_backend_is_one() -> None:
    assert options.one_backend(None) is None and options.one_backend(["compile"]) == "compile"
    with pytest.raises(WmdeployError, match="--backend: got eager, compile, expected one backend"):
        options.one_backend(["eager,compile"])


@pytest.mark.parametrize("verb", ["bench", "rollout", "bisect", "profile", "sweep", "evaluate"])
def test_help_lists_the_backends_that_exist(verb: str) -> None:
    text = CliRunner().invoke(cli.app, [verb, "--help"], env={"COLUMNS": "200"}).output
    words = " ".join(re.sub(r"[^\w.,:-]+", " ", text).split())
    some = {"bisect": options.NODE_BACKENDS, "profile": options.PROFILED_BACKENDS}
    expected = some.get(verb, BACKENDS)
    assert f"Available: {', '.join(expected)}." in words


def test_bisect_offers_the_backends_that_show_values() -> None:
    from wmdeploy.engines.ort.parts import REWRITES

    assert options.NODE_BACKENDS == tuple(REWRITES)


def test_sweep_and_bench_share_their_options() -> None:
    bench, sweep = ({p.name: p for p in COMMANDS[verb].params} for verb in ("bench", "sweep"))
    shared = ("backend", "batch", "clip", "context", "horizon", "refill", "device", "tf32",
              "seconds", "within", "fps", "fit", "series")  # fmt: skip
    for name in shared:
        assert (bench[name].opts, bench[name].help, bench[name].default) == (
            sweep[name].opts, sweep[name].help, sweep[name].default
        )  # fmt: skip


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_says_what_it_is_in_sentences(verb: str) -> None:
    for parameter in COMMANDS[verb].params:
        text = parameter.help or ""
        assert text.endswith(".") and (text[0].isupper() or text.startswith("token")), (
            parameter.name,
            text,
        )


@pytest.mark.parametrize("name", ["backend", "batch", "clip", "context", "fps", "refill", "device"])
def test_an_option_means_one_thing(name: str) -> None:
    """Its help begins with the same noun or verb, whatever the command."""
    helps = {
        parameter.help.split()[0]
        for command in COMMANDS.values()
        for parameter in command.params
        if parameter.name == name and parameter.param_type_name == "option"
    }
    assert len(helps) == 1


def test_sweep_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wmdeploy.benchmarks.sweep import run

    def stop(options: run.SweepOptions, *rest: object) -> None:
        raise WmdeployError(repr((options.layouts, options.precisions, options.bench)))

    monkeypatch.setattr(run, "sweep", stop)
    arguments = ["sweep", "tiny", "-o", str(tmp_path / "s"), "--layout", "latent", "--precision",
                 "fp32,fp16", "--backend", "compile", "--backend", "ort-cpu", "--batch", "1,4",
                 "--context", "4", "--refill", "2", "--tf32", "--within", "5"]  # fmt: skip
    with pytest.raises(WmdeployError) as raised:
        cli.app(arguments, standalone_mode=False)
    text = str(raised.value)
    for part in ("('latent',), ('fp32', 'fp16')", "backends=('compile', 'ort-cpu')", "context=4",
                 "batches=(1, 4)", "refill=2", "tf32=True", "precision=0.05"):  # fmt: skip
        assert part in text, part


def test_every_verb_has_a_file_of_its_own() -> None:
    for verb, command in COMMANDS.items():
        source = inspect.getsourcefile(inspect.unwrap(command.callback))
        assert source is not None and Path(source).stem == verb.replace("-", "_")
