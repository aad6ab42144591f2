"""Addresses on a hub: hf://owner/name[/path][@revision], and hf://datasets/owner/name for data.

address = HubAddress.parse("hf://anna/pong/fp16@v2")
address.repository, address.path, address.revision  # "anna/pong", "fp16", "v2"
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wmdeploy.errors import HubError

FORM = "hf://owner/name[/path][@revision], or hf://datasets/owner/name for a data repository"
_SCHEME = "hf:"
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[\w./-]{1,200}", re.ASCII)


def is_address(source: str | Path) -> bool:
    """Whether a source lies on a hub; `Path("hf://a/b")` has lost a slash, and counts too."""
    return Path(source).parts[:1] == (_SCHEME,)


@dataclass(frozen=True)
class HubAddress:
    """A folder or file of a repository.

    Attributes:
        kind: what the repository is to the hub.
        repository: such as "owner/name".
        path: below it, with slashes; "" for all of it.
        revision: a branch, a tag or a commit; None for the main branch.
    """

    kind: Literal["model", "dataset"]
    repository: str
    path: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, source: str | Path) -> "HubAddress":
        """The address in a text, or in the path that was made of one.

        Raises:
            HubError: it has not the form of one.
        """
        wrong = HubError(f"{source}: expected {FORM}")
        if not is_address(source):
            raise wrong
        text = re.sub("^hf:/*", "", str(source)).rstrip("/")
        text, mark, revision = text.rpartition("@") if "@" in text else (text, "", "")
        parts = text.split("/")
        kind: Literal["model", "dataset"] = "dataset" if parts[0] == "datasets" else "model"
        parts = parts[1:] if parts[0] == "datasets" else parts
        if len(parts) < 2 or not all(_is_name(part) for part in parts[:2]):
            raise wrong
        if not all(is_plain_name(part) for part in parts[2:]):
            raise wrong
        if mark and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise wrong
        return cls(kind, "/".join(parts[:2]), "/".join(parts[2:]), revision or None)

    def __str__(self) -> str:
        prefix = "datasets/" if self.kind == "dataset" else ""
        path = f"/{self.path}" if self.path else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{prefix}{self.repository}{path}{revision}"


def is_plain_name(name: str) -> bool:
    """Whether a name is one of a file or folder that stays where it is put, and can be shown."""
    odd = "\\" in name or not name.isprintable() or len(name.encode(errors="replace")) > 255
    return name not in ("", ".", "..") and not odd


def _is_name(name: str) -> bool:
    """Of an owner or a repository, as hubs have them."""
    return bool(_NAME.fullmatch(name)) and "--" not in name and ".." not in name
