"""Files and directories that exist whole or not at all, and their hashes.

Everything is written beside its destination under a name that starts with a dot, then renamed.
A killed process leaves at most such a dot-name, which the next write to the same destination
removes.
"""

import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from wmdeploy.errors import WmdeployError


def sha256(path: Path) -> str:
    """The hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `target` when the block ends without an error.

    The suffix is kept, because video writers choose their container by it.

    Raises:
        WmdeployError: the disk is full, or the place cannot be written to.
    """
    partial = _partial_path(target)
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def staged_directory(target: Path, marker: str) -> Iterator[Path]:
    """Yield an empty directory; it becomes `target` when the block ends without an error.

    An older `target` is replaced only if it holds `marker`, the file that says it is of the same
    kind, so that a mistyped `-o` never removes a stranger's directory.

    Raises:
        WmdeployError: `target` is something else, the disk is full, or the place cannot be written.
    """
    if target.exists() and not (target / marker).is_file() and not _is_empty_directory(target):
        raise WmdeployError(
            f"{target}: exists and holds no {marker}, so it is not ours to replace; "
            "choose another path or remove it yourself"
        )
    partial = _partial_path(target)
    retired = partial.with_name(f".retired{partial.name}")
    try:
        partial.mkdir()
        yield partial
        if target.exists():
            target.replace(retired)
        try:
            partial.replace(target)
        except OSError:
            if retired.exists():
                retired.replace(target)
            raise
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _partial_path(target: Path) -> Path:
    """A free name beside `target` with our process id; those of dead processes are removed."""
    target = target.absolute()
    prefix = f".{target.stem}.partial-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in (prefix, f".retired{prefix}"):
            for leftover in target.parent.glob(f"{glob.escape(name)}*"):
                owner = leftover.name.removeprefix(name).split(".")[0]
                if owner.isdecimal() and not psutil.pid_exists(int(owner)):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    except OSError as error:
        raise _cannot_write(target, error) from error
    return target.with_name(f"{prefix}{os.getpid()}{target.suffix}")


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _cannot_write(target: Path, error: OSError) -> WmdeployError:
    reason = error.strerror or str(error)
    return WmdeployError(
        f"{target}: cannot be written ({reason}); nothing was changed there. "
        "Check the free space and the permissions, then run the same command again"
    )
