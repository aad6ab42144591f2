"""One writer at a time, and two directories that change places at one moment. Linux only."""

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wmdeploy.errors import WmdeployError

_RELATIVE_TO_WORKING_DIRECTORY = -100  # AT_FDCWD
_RENAME_EXCHANGE = 2  # rename(2)


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Keep other processes of ours from writing into `directory` until the block ends.

    A process that is killed gives it up. Where the file system has no such locks (some network file
    systems), nobody is kept away.

    Raises:
        WmdeployError: another process writes into it.
        OSError: it is no directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WmdeployError(
                f"{directory}: another process is writing into it; wait until that has ended, or "
                "choose another output"
            ) from None
        except OSError:
            pass  # no locks here
        yield
    finally:
        os.close(descriptor)


def exchange(left: Path, right: Path) -> bool:
    """Let two existing paths change places. False, and nothing done, where that cannot be."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except AttributeError:  # another C library than glibc or musl
        return False
    here, paths = _RELATIVE_TO_WORKING_DIRECTORY, (os.fsencode(left), os.fsencode(right))
    return renameat2(here, paths[0], here, paths[1], _RENAME_EXCHANGE) == 0
