"""Names of what is not finished yet, and what killed processes left under such names.

A name tells its process, so that whoever comes next can see whether that still lives.
"""

import glob
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_ours: set[Path] = set()  # what this process works on


def new_place(parent: Path, prefix: str, suffix: str = "") -> Path:
    """A free path `<prefix><process>-<token><suffix>` in `parent`; give it to `forget` later."""
    token = secrets.token_hex(4)  # process numbers repeat, in containers above all
    place = parent / f"{prefix}{os.getpid()}-{token}{suffix}"
    _ours.add(place)
    return place


def forget(place: Path) -> None:
    """Remove what is at a `new_place`, if there is anything; what cannot be removed stays."""
    shutil.rmtree(place, ignore_errors=True)
    _ours.discard(place)


def leftovers(parent: Path, prefix: str, suffix: str = "") -> Iterator[Path]:
    """The places of dead processes."""
    for place in parent.glob(f"{glob.escape(prefix)}*{glob.escape(suffix)}"):
        owner = re.match(r"\d{1,9}(?=-|$|\.)", place.name.removeprefix(prefix))
        if owner is not None and place not in _ours and not _is_alive(int(owner[0])):
            yield place


def remove(place: Path) -> None:
    """Remove a file, a link (not what it leads to), or a directory with all that is in it.

    Raises:
        OSError: it cannot be removed.
    """
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()


@contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """A directory in `$TMPDIR` that is gone after the block, or when the next one is made.

    Raises:
        OSError: it cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    for place in leftovers(parent, prefix):
        if place.lstat().st_uid == os.geteuid():  # $TMPDIR may be everybody's
            forget(place)
    place = new_place(parent, prefix)
    try:
        place.mkdir(mode=0o700)
        yield place
    finally:
        forget(place)


def _is_alive(process: int) -> bool:
    return process != os.getpid() and psutil.pid_exists(process)
