"""Files and directories that exist whole or not at all, read and written so that none does harm.

Everything is written beside its destination in a directory whose name starts with a dot, then
renamed. A killed process leaves at most such a dot-name, which the next write to the same
destination removes, with all that libraries left in it.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TextIO

import msgspec

from wmdeploy.errors import WmdeployError
from wmdeploy.leftovers import forget, leftovers, new_place, remove
from wmdeploy.locks import exchange

LARGEST_DOCUMENT = 16 * 2**20  # bytes; 100,000 clips in an index take 10 MB


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading; anything else is not waited for.

    Raises:
        OSError: there is none, or it is a pipe, a device, a socket or a directory.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(_checked(descriptor, path), "rb")


def read_document(path: Path, most: int = LARGEST_DOCUMENT) -> bytes:
    """The bytes of a regular file, or of a link to one, that is small enough to be read whole.

    Raises:
        OSError: there is none, it is not a regular file, or it holds more than `most` bytes.
    """
    with open_regular(path) as file:
        document = file.read(most + 1)
    if len(document) > most:
        raise OSError(errno.EFBIG, f"holds more than {most / 2**20:g} MiB", str(path))
    return document


def append_regular(path: Path) -> TextIO:
    """Open a text file to add to its end, made if it is not there; a stranger may have made it.

    Raises:
        OSError: it is a link, no regular file, a file with a second name, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = _checked(os.open(path, flags, 0o666), path)
    file = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
    if os.fstat(descriptor).st_nlink > 1:
        file.close()
        raise OSError(errno.EMLINK, "has a second name, a hard link", str(path))
    return file


def _checked(descriptor: int, path: Path) -> int:
    """An open file, closed again if it is no regular one."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return descriptor


def real_path(path: Path) -> Path:
    """An absolute path without links; of a link that leads to itself, the link."""
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError there


def sha256(path: Path) -> str:
    """The hex SHA-256 of a regular file's bytes.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_pointer(path: Path, kind: type[WmdeployError]) -> None:
    """Refuse the few lines that Git LFS leaves in place of a file which was not downloaded.

    Raises:
        WmdeployError, as `kind`: the file is such a pointer. Nothing for what cannot be read:
            whoever reads it in earnest says what is wrong with it.
    """
    mark = b"version https://git-lfs.github.com/spec/"
    with suppress(OSError):
        with open_regular(path) as file:
            if file.read(len(mark)) == mark:
                raise kind(
                    f"{path}: is a pointer of Git LFS, not the file itself, which was not "
                    f"downloaded; run git lfs pull in {path.parent}"
                )


def cache_file(name: str) -> Path:
    """A file of this user's own, that can be made again: codes of clips, compiled kernels.

    Raises:
        WmdeployError: the user has no home directory.
    """
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(root).expanduser() / "wmdeploy" / name
    except RuntimeError as error:
        raise WmdeployError(f"cache: {error}; set HOME or XDG_CACHE_HOME") from error


def write_document(value: object, path: Path) -> None:
    """One valid JSON document: null where a figure does not apply, never NaN or Infinity.

    Of names that are no UTF-8, as files may have, it has `?` for each byte that is none.

    Raises:
        WmdeployError: it cannot be written.
    """
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_in_utf8(msgspec.to_builtins(value, enc_hook=str)))
    write_text(msgspec.json.format(encoded, indent=2).decode() + "\n", path)


def _in_utf8(value: object) -> object:
    if isinstance(value, dict):
        return {_in_utf8(name): _in_utf8(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_utf8(inner) for inner in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def write_text(text: str, path: Path) -> None:
    """Write or replace a text file.

    Raises:
        WmdeployError: it cannot be written.
    """
    with staged_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class DirectoryKind:
    """What marks a directory as ours, and no stranger's: what its marker holds, and its entries.

    `marker` is a JSON file with `key` in it; `entries` are patterns that cover all that is in it.
    """

    marker: str
    key: str
    entries: tuple[str, ...]

    def stranger(self, path: Path) -> str | None:
        """Why `path` is not of this kind, or None if it is."""
        try:
            document = json.loads(read_document(path / self.marker))
        except (OSError, ValueError, RecursionError):
            return f"holds no {self.marker} of ours"
        if not isinstance(document, dict) or not {"schema", self.key} <= document.keys():
            return f"its {self.marker} is not ours"
        for entry in sorted(path.iterdir()):
            if not any(entry.match(pattern) for pattern in (self.marker, *self.entries)):
                return f"holds {entry.name}, which is not ours"
        return None


def check_output(target: Path, *inputs: Path) -> None:
    """Refuse, before any work, an output file that cannot be written or would destroy an input.

    Raises:
        WmdeployError: it is a directory or a device, its place cannot be written to, its name is
            too long, or it is one of `inputs`, inside one, or the file of arrays that one lies in.
    """
    check_name(target)
    resolved = real_path(target)
    if resolved.exists() and not resolved.is_file():
        raise WmdeployError(f"{target}: exists and is not a regular file; choose another output")
    for path in map(real_path, inputs):
        if resolved == path or path in resolved.parents or resolved in path.parents:
            raise WmdeployError(
                f"{target}: is the input {path} or inside it; choose another output"
            )
    place = next(p for p in resolved.parents if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise WmdeployError(f"{target}: cannot be written, as {place} is not a writable directory")


def check_output_directory(target: Path, *inputs: Path) -> None:
    """Refuse, before any work, an output directory that an input lies in.

    Raises:
        WmdeployError: replacing `target` would destroy one of `inputs`, or its name is too long.
    """
    check_name(target)
    resolved = real_path(target)
    for path in map(real_path, inputs):
        if resolved == path or resolved in path.parents or path in resolved.parents:
            raise WmdeployError(
                f"{target}: overlaps with the input {path}, which would be lost; "
                "choose another output"
            )


def check_inside(path: Path, root: Path) -> None:
    """Refuse to write to `path`, below a directory that may be a stranger's, where it would leave.

    Raises:
        WmdeployError: `path`, or a directory between it and `root`, is a link, or what is there is
            no regular file.
    """
    parts = [path, *path.parents]
    for part in parts[: parts.index(root)]:
        if part.is_symlink():
            raise WmdeployError(
                f"{part}: is a link, and wmdeploy does not write through links inside {root}; "
                "remove it, or work on a copy without links (cp -rL)"
            )
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise WmdeployError(f"{path}: exists and is not a regular file; remove it")


def check_name(target: Path) -> None:
    """Refuse, before any work, what no file can be named.

    Raises:
        WmdeployError: a part of the path has more bytes than a name may have.
    """
    for part in target.parts:
        if (size := len(os.fsencode(part))) > NAME_BYTES:
            raise WmdeployError(
                f"{target}: a name of {size} bytes, expected at most {NAME_BYTES}; "
                "choose a shorter one"
            )


def explained(error: OSError) -> str:
    """What the system says of a file that is the user's, and what to do about it."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; {_advice(error)}"


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `target` when the block ends without an error.

    It has the name of the target, in a directory of its own, where a library may leave files of its
    own, too. A link is followed: where `target` may be a stranger's, call `check_inside` first.

    Raises:
        WmdeployError: the disk is full, or the place cannot be written to.
    """
    check_output(target)
    resolved = real_path(target)
    partial = _partial_path(resolved)
    try:
        partial.mkdir()
        yield partial / resolved.name
        (partial / resolved.name).replace(resolved)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        forget(partial)


@contextmanager
def staged_directory(target: Path, kind: DirectoryKind) -> Iterator[Path]:
    """Yield an empty directory; it becomes `target` when the block ends without an error.

    An older `target` is replaced only if it is of the same kind and holds nothing else, so that a
    mistyped `-o` never removes a stranger's files. At every moment one of both is there, where the
    file system can exchange them. A link is followed.

    Raises:
        WmdeployError: `target` is something else, the disk is full, or the place cannot be written.
    """
    target = real_path(target)
    partial = _partial_path(target)
    try:
        if target.exists() and not _is_empty_directory(target):
            if reason := kind.stranger(target):
                raise WmdeployError(
                    f"{target}: {reason}, so it is not ours to replace; "
                    "choose another path or remove it yourself"
                )
        partial.mkdir()
        yield partial
        if not (target.exists() and exchange(partial, target)):
            _replace_in_two_steps(partial, target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        forget(partial)


def _replace_in_two_steps(partial: Path, target: Path) -> None:
    """With a moment between them in which there is no target; `_partial_path` knows of it."""
    retired = partial.with_name(f".retired{partial.name}")
    try:
        if target.exists():
            target.replace(retired)
        try:
            partial.replace(target)
        except OSError:
            if retired.exists():
                retired.replace(target)
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


NAME_BYTES = 255  # of one name, in every file system that is in use here
# what staging adds to a name: two dots, "retired", "partial-", a process, a token of 8 characters
_STAGED_BYTES = len(".retired..partial-") + 10 + 1 + 8
_PARTIAL = re.compile(r"\.([^/]+)\.partial-\d+-[0-9a-f]{8}")


def _partial_path(target: Path) -> Path:
    """A free name beside `target`; what killed processes left there is brought back or removed."""
    stem, suffix = _short_name(target)
    prefix = f".{stem}.partial-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for retired in leftovers(target.parent, f".retired{prefix}", suffix):
            if target.exists() or retired.is_symlink():
                remove(retired)
            else:
                retired.replace(target)  # killed between two renames: the old one is whole
        for leftover in leftovers(target.parent, prefix, suffix):
            remove(leftover)
    except OSError as error:
        raise _cannot_write(target, error) from error
    return new_place(target.parent, prefix, suffix)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _short_name(target: Path) -> tuple[str, str]:
    """Stem and suffix to stage `target` by; of a long name its begin and a hash, its own alone."""
    room = NAME_BYTES - _STAGED_BYTES
    if len(os.fsencode(target.name)) <= room:
        return target.stem, target.suffix
    suffix = target.suffix if len(target.suffix) < 10 else ""
    digest = f"-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}"
    begin = os.fsencode(target.stem)[: room - len(digest) - len(suffix)]
    return begin.decode(errors="ignore") + digest, suffix


def _cannot_write(target: Path, error: OSError) -> WmdeployError:
    named = _PARTIAL.sub(r"\1", str(target))  # inside a directory that is not there yet
    cause: BaseException | None = error
    while cause is not None and error.errno is None:  # a library's words: the system's are clearer
        cause = cause.__cause__ or cause.__context__
        error = cause if isinstance(cause, OSError) else error
    return WmdeployError(
        f"{named}: cannot be written ({error.strerror or error}); nothing was changed there. "
        f"{_advice(error).capitalize()}"
    )


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.ENAMETOOLONG:
            return "choose a shorter name"
        case errno.EROFS:
            return "the place is read-only: choose another"
        case errno.EMFILE | errno.ENFILE:
            return "raise the limit of open files (ulimit -n)"
        case errno.EFBIG:
            return "raise the limit on the size of files (ulimit -f), or choose another place"
        case errno.EACCES | errno.EPERM:
            return "check the permissions, then run the same command again"
        case errno.ENOSPC | errno.EDQUOT:
            return "free some space, then run the same command again"
    return "check the free space and the permissions, then run the same command again"
