"""The client of huggingface_hub, quiet; and what it raises, as one line with the remedy."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from wmdeploy.errors import HubError, require
from wmdeploy.hub.address import HubAddress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MOST_FILES = 100_000  # of a repository that is listed


def connect(purpose: str) -> "HfApi":
    """A client that prints nothing: no bars, no warnings.

    Raises:
        MissingError: huggingface_hub is not installed.
    """
    require("huggingface_hub", extra="hub", purpose=purpose)
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    logging.set_verbosity_error()
    return HfApi()


def newest_commit(api: "HfApi", address: HubAddress) -> str:
    """The commit that an address stands for now, 40 hexadecimal digits.

    Raises:
        HubError: the hub names none.
    """
    info = api.repo_info(address.repository, revision=address.revision, repo_type=address.kind)
    if not re.fullmatch("[0-9a-f]{40}", info.sha or ""):
        raise HubError(f"{address}: {_host()} names no commit of it")
    return info.sha or ""


def list_files(api: "HfApi", address: HubAddress, commit: str) -> dict[str, int]:
    """All files of a repository at a commit, by path below it, with their bytes.

    Raises:
        HubError: there are more than `MOST_FILES`.
    """
    from huggingface_hub.hf_api import RepoFile

    files: dict[str, int] = {}
    entries = api.list_repo_tree(
        address.repository, recursive=True, revision=commit, repo_type=address.kind
    )
    for entry in entries:
        if isinstance(entry, RepoFile):
            files[entry.path] = entry.size
        if len(files) > MOST_FILES:
            raise HubError(
                f"{address}: the repository has more than {MOST_FILES:,} files; download what you "
                "need with huggingface_hub's own command, `hf download`, and give its path"
            )
    return files


@contextmanager
def explained(address: HubAddress) -> Iterator[None]:
    """Turn what huggingface_hub raises within the block into a `HubError` of one line.

    Raises:
        HubError: the hub cannot be reached, has not what was asked for, or refuses it.
        OSError: of this machine, such as a full disk.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, HubError) or (message := _message(error, address)) is None:
            raise
        raise HubError(f"{address}: {message}") from error


def _message(error: BaseException, address: HubAddress) -> str | None:
    """What went wrong, and what to do; None if the error is not of the hub or the way to it."""
    from huggingface_hub import errors

    for cause in _causes(error):
        match cause:
            case errors.GatedRepoError():
                return (
                    f"{_host()} asks for the consent of its owners; agree on its page there, then "
                    "set HF_TOKEN to your token"
                )
            case errors.RepositoryNotFoundError():
                return (
                    f"{_host()} has no such {address.kind} repository, or it is private; check the "
                    "name, or set HF_TOKEN to a token that may read it"
                )
            case errors.RevisionNotFoundError():
                return f"the repository has no revision {address.revision or 'main'}"
            case errors.OfflineModeIsEnabled():
                return (
                    "HF_HUB_OFFLINE forbids to ask the hub; unset it, or give the local path of "
                    "an earlier download"
                )
            case errors.HfHubHTTPError():
                return _refusal(cause)
    # HTTPError of httpx, or of httpx2 since huggingface_hub 2: the base of what has no answer
    no_answer = errors.HfHubHTTPError.__bases__[0]
    for cause in _causes(error):
        if isinstance(cause, no_answer | ConnectionError | TimeoutError):
            return (
                f"{_host()} cannot be reached ({cause or type(cause).__name__}); check the "
                "network, or give the local path of an earlier download"
            )
    system = isinstance(error, OSError) and error.errno in errno.errorcode
    if isinstance(error, OSError | RuntimeError | ValueError) and not system:
        return f"{error}; run the same command again"
    return None


def _refusal(error: "BaseException") -> str:
    """Of a hub that answered, but not with what was asked for."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    why = getattr(error, "server_message", None) or f"status {status}"
    if status in (401, 403):
        return f"{_host()} refuses it ({why}); set HF_TOKEN to a token that may do this"
    if status == 412:
        return "the repository was changed meanwhile; run the same command again"
    return f"{_host()} refuses it ({why}); run the same command again later"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _host() -> str:
    """The hub's name, without a password that its address may hold."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]
