"""How to install what is missing, from where wmdeploy itself was installed: no index has it."""

import re
import shlex
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


def install_command(extra: str = "") -> str:
    """The command that brings the packages of an extra, or without one those of wmdeploy itself.

    From a checkout it installs that again, with the versions that its tests passed with; from
    anywhere else it names the packages.
    """
    constraints = CHECKOUT / "constraints.txt"
    if constraints.is_file() and (CHECKOUT / "pyproject.toml").is_file():
        target = f"{CHECKOUT}[{extra}]" if extra else str(CHECKOUT)
        return f"pip install -c {shlex.quote(str(constraints))} -e {shlex.quote(target)}"
    return "pip install " + " ".join(map(shlex.quote, _requirements(extra)))


def _requirements(extra: str) -> list[str]:
    """Such as "jinja2>=3.1", as the installed package has them."""
    try:
        lines = metadata.requires("wmdeploy") or []
    except metadata.PackageNotFoundError:
        lines = []
    requirements = []
    for line in lines:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        named = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        if (named[1] if named else "") == extra:
            requirements.append(requirement)
    return requirements
