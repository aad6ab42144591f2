"""A folder that `wmdeploy site` wrote, beside the server of the same bundle."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmdeploy.bundle import Bundle
from wmdeploy.errors import BundleError
from wmdeploy.files import read_document
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.programs.contract import Programs
from wmdeploy.serve.starts import Start

INFO = "info"


@dataclass(frozen=True)
class Site:
    """A site's folder, and what its page knows of the model."""

    directory: Path
    info: dict[str, Any]


def bundle_digest(bundle: Bundle) -> str:
    """SHA-256 of its manifest, which has those of all files."""
    return hashlib.sha256(read_document(bundle.path / MANIFEST_FILE)).hexdigest()


def rendered_by(programs: Programs) -> list[str]:
    """The graphs that render, which say which decoder it is."""
    return [call.graph for call in programs.render]


def read_site(directory: Path, bundle: Bundle, programs: Programs, starts: Sequence[Start]) -> Site:
    """A site, for a page that can run the model in its tab as well.

    Args:
        programs: that the server runs of the bundle.

    Raises:
        BundleError: the folder is no site, or one of another bundle, decoder, or of other starts.
    """
    try:
        info = json.loads(read_document(directory / INFO))
        digest, rendering = info["bundle"], info["rendered_by"]
        titles = [start["title"] for start in info["starts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{directory}: is no folder that wmdeploy site wrote") from error
    anew = f"write it anew: wmdeploy site {bundle.path} -o {directory}"
    if digest != bundle_digest(bundle):
        raise BundleError(f"{directory}: is a site of another bundle; {anew}")
    if rendering != rendered_by(programs):
        raise BundleError(f"{directory}: renders with another decoder; {anew}, with that decoder")
    if titles != [start.title for start in starts]:
        raise BundleError(f"{directory}: has other starts than the server; {anew}, with its clips")
    return Site(directory, info)
