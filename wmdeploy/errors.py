"""The errors a user can cause. Each message says what was given, what was expected, what to do.

The command line shows them as one line and exits with 1; any other exception is a bug of ours and
keeps its traceback.
"""

import importlib
from types import ModuleType

from wmdeploy.install import install_command


class WmdeployError(Exception):
    """Base of every error that is about the user's input or machine, not about our code."""


class ClipError(WmdeployError):
    """A clip, video, picture folder or data folder cannot be read or does not fit."""


class CheckpointError(WmdeployError):
    """A model file is unreadable, unsafe, incomplete or does not fit its configuration."""


class FamilyError(WmdeployError):
    """A model family is unknown, cannot be imported, or breaks the contract of families."""


class BundleError(WmdeployError):
    """A bundle is incomplete, altered, of another schema, or leaves its own directory."""


class ExportError(WmdeployError):
    """A graph could not be exported, or differs from PyTorch by more than its tolerance."""


class BackendError(WmdeployError):
    """A backend is unknown, not installed, or not what would really run."""


class MissingError(BackendError):
    """What is needed is not here: a package, its libraries, a GPU, a compiler, a plan, a kernel."""


class HubError(WmdeployError):
    """A hub cannot be reached, has not what was asked for, refuses it, or it is too large."""


class TrainingError(WmdeployError):
    """Training cannot start, cannot resume, or diverged."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Raises:
        MissingError: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingError(
            f"{purpose} needs {module}, which cannot be imported ({error}); "
            f"install it with: {install_command(extra)}"
        ) from error
