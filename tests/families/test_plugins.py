"""Families of strangers: installed from outside, named on the command line, and wrong ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.families import mean_pool
from tests.plugins import install
from wmdeploy.clips.read import SAMPLE_CLIP

POOL = Path(mean_pool.__file__).read_text()


def wmdeploy(*arguments: str | Path, **options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a verb.

    Args:
        options: `cwd`, and `path`: a folder of installed packages.
    """
    places = [str(options[name]) for name in ("path",) if name in options]
    old = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*places, *([old] if old else [])])
    return subprocess.run(
        [sys.executable, "-m", "wmdeploy.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "160"},
        cwd=options.get("cwd"),
    )


def ran(*arguments: str | Path, **options: str | Path) -> str:
    result = wmdeploy(*arguments, **options)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def refused(*arguments: str | Path, **options: str | Path) -> str:
    """The one line of an error that a user can mend."""
    result = wmdeploy(*arguments, **options)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    line = " ".join(result.stderr.split())
    assert line.startswith("error: "), result.stderr
    return line


@pytest.mark.slow
def test_installed_plugin_goes_from_export_to_bench(tmp_path: Path) -> None:
    site, bundle = tmp_path / "site", tmp_path / "bundle"
    install(site, "mean-pool", "strangers_pool:MeanPoolFamily", strangers_pool=POOL)
    here = {"path": site, "cwd": tmp_path}
    ran("export", "mean-pool-16", "--family", "mean-pool", "-o", bundle, **here)
    assert "mean-pool" in (bundle / "manifest.json").read_text()
    assert "levels" in ran("inspect", bundle, **here)
    ran("rollout", bundle, SAMPLE_CLIP, "-o", tmp_path / "dream.npz", **here)
    ran("rollout", bundle, SAMPLE_CLIP, "-o", tmp_path / "d.gif", "--backend", "eager", **here)
    report = tmp_path / "bench.json"
    ran(
        *("bench", bundle, "--backend", "ort-cpu", "--seconds", "0.01"),
        *("--json", report),
        **here,
    )
    rows = json.loads(report.read_text())["rows"]
    assert {row["verdict"] for row in rows} == {"pass"}
    assert {"levels", "pool", "add", "draw", "frame", "imagine"} <= {row["stage"] for row in rows}
    # without the plugin, what needs no family goes on, and what needs it says so
    alone = {"cwd": tmp_path}
    ran("rollout", bundle, SAMPLE_CLIP, "-o", tmp_path / "alone.npz", **alone)
    line = refused(
        "rollout", bundle, SAMPLE_CLIP, "-o", tmp_path / "x.npz", "--backend", "eager", **alone
    )
    assert "model family: got 'mean-pool', expected one of" in line and "module:Class" in line


@pytest.mark.slow
def test_plugin_is_named_by_its_class_where_it_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "my_pool.py").write_text(POOL)
    named, here = ("--family", "my_pool:MeanPoolFamily"), {"cwd": tmp_path}
    ran("export", "mean-pool-16", *named, "-o", "bundle", **here)
    line = refused("bench", "bundle", "--backend", "ort-cpu", "--seconds", "0.01", **here)
    assert "'mean-pool'" in line
    ran("bench", "bundle", *named, "--backend", "ort-cpu", "--seconds", "0.01", **here)


FAULTS = {
    "import": ("import json", "import nothing_of_that_name", "No module named 'nothing_of_that"),
    "build": (
        "        return MeanPool(config)",
        "        return MeanPool(config.widht)",
        "family my_pool:MeanPoolFamily: its code failed: AttributeError: .* .my_pool.py, line",
    ),
    "deployment": (
        '"new.token": "token", "out.codes": "codes"}',
        '"new.token": "tokn", "out.codes": "codes"}',
        'its programs do not fit its graphs: encode: "tokn" is no output of the graph levels',
    ),
    "source": (
        '"token": "newest.token", "position"',
        '"token": "newest.tokn", "position"',
        'predict: add is fed from "newest.tokn", which there is not',
    ),
    "shape": (
        'TensorSpec("tokens", "float32", (BATCH, model.context, PARTS))',
        'TensorSpec("tokens", "float32", (BATCH, model.context + 1, PARTS))',
        "refresh: pool.tokens is float32 .B, 7, 16., and window.token is float32 .B, 6, 16.",
    ),
    "loops": (
        '{"new.token": "next_token", "state.total": "next_total"},',
        '{"new.token": "next_token", "state.total": "next_total"}, times=10**9,',
        "runs",
    ),
    "forward": (
        "        return self.model.draw(token)",
        "        return self.model.draw(token[:, :3])",
        "family my_pool:MeanPoolFamily: its code failed: RuntimeError: .* .my_pool.py, line",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_plugin_is_one_line_and_leaves_nothing(tmp_path: Path, fault: str) -> None:

    right, wrong, message = FAULTS[fault]
    text = POOL if fault != "import" else f"import json\n{POOL}"
    assert right in text
    (tmp_path / "my_pool.py").write_text(text.replace(right, wrong, 1))
    line = refused(
        "export", "mean-pool-16", "--family", "my_pool:MeanPoolFamily", "-o", "bundle", cwd=tmp_path
    )
    assert re.search(message, line), line
    assert not [p for p in tmp_path.iterdir() if p.name not in ("my_pool.py", "__pycache__")]


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("nothing", "model family: got 'nothing', expected one of vqvae-transformer"),
        ("no_such:Family", "model family no_such:Family: cannot be imported"),
        ("json:JSONDecoder", "got JSONDecoder, expected a subclass of wmdeploy.families.Model"),
        ("json:Nothing", "model family json:Nothing: cannot be imported .AttributeError"),
    ],
)
def test_family_that_is_not_there_is_refused(tmp_path: Path, family: str, message: str) -> None:

    line = refused("export", "tiny", "--family", family, "-o", tmp_path / "bundle")
    assert re.search(message, line), line
    assert not (tmp_path / "bundle").exists()


def test_layout_of_another_family_is_refused(tmp_path: Path) -> None:
    line = refused("export", "tiny", "--layout", "default", "-o", tmp_path / "x")
    assert line == "error: layout: got 'default', expected one of token, latent"


def test_two_packages_with_one_name_are_refused(tmp_path: Path) -> None:
    for package in ("pool-a", "pool-b"):
        install(tmp_path, "mean-pool", "pool:MeanPoolFamily", package=package, pool=POOL)
    line = refused(
        "export", "mean-pool-16", "--family", "mean-pool", "-o", tmp_path / "x", path=tmp_path
    )
    assert re.search("pool-[ab] and pool-[ab] both offer it", line)
