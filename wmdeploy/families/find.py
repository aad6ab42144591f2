"""Which families there are, and which one a model is of.

    model = load_model("models/pong")
    deployment = family_of(model).deployment(model, "token", "fp32")

Families are those that ship with wmdeploy, those that installed packages offer as entry points of
the group `wmdeploy.families`, and those named as "module:Class" by `use_family`. A bundle or a
model directory names its family, never a module: nothing in it decides what is imported.

Importing this module imports no torch and no family.
"""

import dataclasses
import hashlib
import importlib
import os
import re
import sys
import traceback
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmdeploy.errors import BundleError, CheckpointError, FamilyError, WmdeployError, require
from wmdeploy.families.directory import (
    MODEL_KIND,
    is_model_directory,
    parse_config,
    read_model_document,
)
from wmdeploy.families.family import ModelFamily
from wmdeploy.files import sha256, staged_directory
from wmdeploy.manifest import Manifest, not_the_folder

if TYPE_CHECKING:
    from torch import nn

GROUP = "wmdeploy.families"  # of entry points
# families named as "module:Class", separated by commas; processes that are started inherit it
VARIABLE = "WMDEPLOY_FAMILY"
# Those that ship with wmdeploy; each is "module:Class", as an entry point's.
SHIPPED = {
    "vqvae-transformer": "wmdeploy.families.reference.family:ReferenceFamily",
    "tokens": "wmdeploy.families.tokens.family:TokensFamily",
    "diffusion": "wmdeploy.families.diffusion.family:DiffusionFamily",
    "recurrent": "wmdeploy.families.recurrent.family:RecurrentFamily",
}
DEFAULT = "vqvae-transformer"  # of sources that do not name theirs


def family_names() -> tuple[str, ...]:
    """Those that can be named: shipped, and installed."""
    return tuple(dict.fromkeys((*SHIPPED, *_installed())))


def use_family(reference: str) -> str:
    """Let this process, and those that it starts, know a family that is not installed.

    Args:
        reference: "module:Class", where modules of the working directory count too; or the name of
            one that is shipped or installed.

    Returns:
        The family's name.

    Raises:
        FamilyError: there is no such family, or it cannot be imported.
    """
    if ":" not in reference:
        return load_family(reference).name
    name = _import_named(reference).name
    others = [other for other in _named() if other != reference]
    same = [other for other in others if _import_named(other).name == name]
    if same := [*same, *filter(None, [SHIPPED.get(name)])]:
        raise FamilyError(
            f"model family {reference}: its name is {name!r}, as that of {same[0]}; give it another"
        )
    os.environ[VARIABLE] = ",".join((*others, reference))
    return name


def load_family(name: str) -> ModelFamily:
    """The family of that name.

    Raises:
        FamilyError: there is none, or its package cannot be imported.
    """
    if name in SHIPPED:
        return _import(SHIPPED[name])
    for reference in _named():
        if (family := _import_named(reference)).name == name:
            return family
    offers = _installed().get(name, ())
    if len(offers) > 1:
        packages = " and ".join(package for package, _ in offers)
        raise FamilyError(f"model family {name!r}: {packages} both offer it; uninstall one of them")
    for package, reference in offers:
        family = _import(reference)
        if family.name != name:
            raise FamilyError(
                f"model family {name!r}: {package} offers {reference} by that name, and its own "
                f"name is {family.name!r}; mend the package's entry point"
            )
        return family
    raise FamilyError(
        f"model family: got {name!r}, expected one of {', '.join(family_names())}; install the "
        "package that brings it, or name its class as module:Class"
    )


def find_family(source: str, family: str | None = None) -> ModelFamily:
    """The family of a model directory, a checkpoint or a preset's name.

    Args:
        family: its name, where the source does not hold it.

    Raises:
        FamilyError: there is no such family, or the source says that it is of another one.
    """
    if not is_model_directory(Path(source)):
        return load_family(family or DEFAULT)
    named = str(read_model_document(Path(source)).get("family", DEFAULT))
    if family not in (None, named):
        raise FamilyError(f"family: got {family}, and {source} is a model of the family {named}")
    return load_family(named)


def family_of(model: "nn.Module") -> ModelFamily:
    """The family of a model that has been loaded."""
    return load_family(str(model.family))


def load_model(
    source: str | Path,
    seed: int = 0,
    remarks: list[str] | None = None,
    family: str | None = None,
) -> "nn.Module":
    """Load a model of any family; see `ModelFamily.load`.

    Args:
        family: as `find_family` takes it.

    Raises:
        CheckpointError: it cannot be read.
        FamilyError: its family is not there.
    """
    require("torch", extra="export", purpose="loading a model")
    if advice := not_the_folder(Path(source)):
        raise CheckpointError(advice)
    chosen = find_family(str(source), family)
    model = chosen.load(str(source), seed, remarks)
    if getattr(model, "family", None) != chosen.name or not hasattr(model, "config"):
        raise FamilyError(
            f"family {chosen.name}: its model is a {type(model).__name__} with the family "
            f"{getattr(model, 'family', None)!r}, expected {chosen.name!r}, and a config"
        )
    return model


def save_model(model: "nn.Module", target: Path, about: dict[str, Any] | None = None) -> None:
    """Write a model directory; it appears whole or not at all.

    Args:
        about: JSON-serialisable notes on the model's origin, kept in its config.json.

    Raises:
        WmdeployError: `target` is something else, or cannot be written.
    """
    with staged_directory(target, MODEL_KIND) as directory:
        family_of(model).save(model, directory, about or {})


def load_bundled_model(manifest: Manifest, directory: Path) -> "nn.Module":
    """The model that a bundle carries in `directory`, which the caller has checked.

    Raises:
        BundleError: its sizes are not the manifest's.
        CheckpointError: the manifest's sizes are no model's, or the model is damaged.
        FamilyError: its family is not there.
    """
    require("torch", extra="export", purpose="loading a bundle's PyTorch model")
    family = load_family(manifest.family)
    model = family.load(str(directory), 0, None)
    if parse_config(family, manifest.model) != model.config:
        raise BundleError(
            f"{directory.parent}: the model in it has other sizes than the manifest; export again"
        )
    return model


def plugin_code(family: ModelFamily) -> str | None:
    """The hash of the Python code of a family that wmdeploy does not ship; None of others."""
    module = type(family).__module__
    if f"{module}:{type(family).__name__}" in SHIPPED.values():
        return None
    place = _place(sys.modules[module])
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def plugin_fault(error: BaseException) -> str | None:
    """For a message: what went wrong in the code of a family that wmdeploy does not ship.

    None where no such code took part.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        for name, place in _plugins.items():
            if Path(frame.filename).is_relative_to(place):
                text = f"{type(error).__name__}: {error}"
                where = f"{Path(frame.filename).name}, line {frame.lineno}"
                return f"family {name}: its code failed: {text} ({where}); mend the plugin"
    return None


_plugins: dict[str, Path] = {}  # families that were imported and are not ours: where their code is


def _named() -> tuple[str, ...]:
    return tuple(filter(None, os.environ.get(VARIABLE, "").split(",")))


@cache
def _installed() -> dict[str, list[tuple[str, str]]]:
    """By name: the packages that offer a family, and its "module:Class"."""
    offers: dict[str, list[tuple[str, str]]] = {}
    for entry in metadata.entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else entry.module
        offers.setdefault(entry.name, []).append((package, entry.value))
    return offers


def _import_named(reference: str) -> ModelFamily:
    """Modules of the working directory count, in processes that were started as well."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: no file there takes the place of a package
    return _import(reference)


@cache
def _import(reference: str) -> ModelFamily:
    """The family of "module:Class".

    Raises:
        FamilyError: it cannot be imported, or is no family.
    """
    module_name, _, attribute = reference.partition(":")
    shipped = reference in SHIPPED.values()
    try:
        module = importlib.import_module(module_name)
        if not shipped:
            _plugins[reference] = _place(module)
        made: Any = getattr(module, attribute)
        family = made() if isinstance(made, type) else made
    except WmdeployError:
        raise
    except Exception as error:
        if shipped:
            raise
        raise FamilyError(
            f"model family {reference}: cannot be imported ({type(error).__name__}: {error}); "
            "expected module:Class, such as my_models.family:MyFamily"
        ) from error
    if not isinstance(family, ModelFamily):
        raise FamilyError(
            f"model family {reference}: got {type(family).__name__}, expected a subclass of "
            "wmdeploy.families.ModelFamily"
        )
    lacks = [n for n in ("name", "title", "config") if not hasattr(family, n)]
    if lacks or not dataclasses.is_dataclass(family.config):
        raise FamilyError(
            f"model family {reference}: it has no {lacks[0] if lacks else 'dataclass'!r}, expected "
            "a name, a title, and a config that is a dataclass"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", str(family.name)):
        raise FamilyError(
            f"model family {reference}: its name is {str(family.name)[:60]!r}, expected lower case "
            "letters, digits and dashes"
        )
    return family


def _place(module: Any) -> Path:
    """The folder of the package that a module is in, or its file where it is in none."""
    top = sys.modules[module.__name__.partition(".")[0]]
    file = Path(str(top.__file__ or module.__file__))
    return file.parent if file.name == "__init__.py" else file
