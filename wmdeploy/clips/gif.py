"""Whether a GIF is whole. Its decoders skip what they do not understand, and lose frames by it.

Finds most damage, not all: nothing in a GIF is summed. Knows its blocks (GIF89a specification,
appendix B), not what is in them.
"""

from pathlib import Path
from typing import IO

_EXTENSION, _IMAGE, _END = b"!", b",", b";"


def damage_of_gif(path: Path) -> str | None:
    """Where the chain of blocks from the header to the end mark breaks; None if it does not."""
    with path.open("rb") as file:
        header = file.read(13)
        _skip_colours(file, header[10:11])
        while (kind := file.read(1)) in (_EXTENSION, _IMAGE):
            if kind == _EXTENSION:
                file.seek(1, 1)  # its label
            else:
                _skip_colours(file, file.read(9)[8:9])
                file.seek(1, 1)  # bits of a code
            while size := file.read(1):
                if size == b"\0":
                    break
                file.seek(size[0], 1)
        if kind == _END:
            return None
        return f"it breaks off at byte {file.tell() - 1}" if kind else "its end mark is missing"


def _skip_colours(file: IO[bytes], flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 * 2 ** ((flags[0] & 7) + 1), 1)
