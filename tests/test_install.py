"""What messages say of installing works from where the user is: no index has `wmdeploy`."""

import re
import shlex
from pathlib import Path

import pytest

from wmdeploy import install
from wmdeploy.install import install_command

ROOT = Path(__file__).parent.parent


def test_checkout_is_installed_again_with_the_extra() -> None:
    words = shlex.split(install_command("train"))
    assert words == ["pip", "install", "-c", f"{ROOT}/constraints.txt", "-e", f"{ROOT}[train]"]
    assert shlex.split(install_command())[-1] == str(ROOT)


def test_elsewhere_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(install, "CHECKOUT", tmp_path)
    words = shlex.split(install_command("report"))
    assert words[:2] == ["pip", "install"]
    assert [word.partition(">=")[0] for word in words[2:]] == ["jinja2", "matplotlib"]
    assert {word.partition(">=")[0] for word in shlex.split(install_command())} >= {"onnx", "numpy"}


@pytest.mark.parametrize("file", ["Makefile", "scripts/gpu_check.sh"])
def test_machine_with_a_gpu_gets_what_others_get(file: str) -> None:
    """Or it cannot export, and pytest cannot collect every test."""
    (default,) = re.findall(r"^EXTRAS \?= (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (extras,) = re.findall(r"make .* EXTRAS=(.*,rtx.*)", (ROOT / file).read_text())
    of_a_cpu = {"cpu", "openvino"}
    assert set(extras.split(",")) == set(default.split(",")) - of_a_cpu | {"gpu"}


def test_nothing_asks_an_index_for_us() -> None:
    files = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *(
            p
            for room in ("wmdeploy", "exporters", "engines", "benchmarks")
            for p in ROOT.glob(f"{room}/**/*.py")
        ),
    ]
    assert len(files) > 100
    asking = [
        str(f) for f in files if "wmdeploy[" in f.read_text() or "install wmdeploy" in f.read_text()
    ]
    assert asking == []
