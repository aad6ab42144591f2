"""A bundle to a repository of a hub: its files and a model card, in one commit.

    url = push(bundle, HubAddress.parse("hf://anna/pong"), card)

What is there already is replaced only if it is a bundle: files that the new one has not are removed
by the same commit, and stay in the repository's history. A card that somebody wrote is kept.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from wmdeploy.bundle import BUNDLE_KIND, Bundle
from wmdeploy.clips.layout import listed
from wmdeploy.errors import HubError
from wmdeploy.files import read_document
from wmdeploy.hub.address import HubAddress
from wmdeploy.hub.client import connect, explained, list_files, newest_commit
from wmdeploy.manifest import MANIFEST_FILE
from wmdeploy.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD_FILE = "README.md"
CARD_MARK = "<!-- written by wmdeploy push, which replaces it; remove this line to keep yours -->"
_KEPT = (CARD_FILE, "LICENSE", "LICENSE.md", "LICENSE.txt")  # beside a bundle, the owner's own


def push(
    bundle: Bundle,
    address: HubAddress,
    card: str,
    *,
    private: bool = False,
    progress: Progress = silent,
    remarks: list[str] | None = None,
) -> str:
    """Upload a bundle, without its plans, and give the address of the commit in a browser.

    Args:
        card: the model card, with `CARD_MARK` in it.
        private: of a repository that is made; one that is there stays as it is.
        remarks: gets what was removed, kept or left out.

    Raises:
        BundleError: the bundle was altered.
        HubError: there is no token, the hub cannot be reached or refuses it, or what lies at the
            address is no bundle.
        MissingError: huggingface_hub is not installed.
    """
    bundle.verify()
    remarks = [] if remarks is None else remarks
    api = connect("pushing a bundle")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token

    if address.kind != "model":
        raise HubError(f"{address}: is a data repository; expected hf://owner/name[/path]")
    if not get_token():
        raise HubError(
            f"{address}: pushing needs a token; set HF_TOKEN to one that may write, or log in "
            "with `hf auth login`"
        )
    with explained(address):
        if address.revision is None:
            api.create_repo(address.repository, private=private or None, exist_ok=True)
        commit = newest_commit(api, address)
        listing = list_files(api, address, commit)
        older = _older_bundle(api, address, commit, listing)
    prefix = f"{address.path}/" if address.path else ""
    names = [MANIFEST_FILE, *bundle.manifest.files]
    additions = {n: CommitOperationAdd(prefix + n, str(bundle.path / n)) for n in names}
    if f"{prefix}{CARD_FILE}" in listing and not _is_ours(api, address, commit, prefix):
        remarks.append(f"{address}: its {CARD_FILE} is somebody's own, and stays as it is")
    else:
        additions[CARD_FILE] = CommitOperationAdd(prefix + CARD_FILE, card.encode())
    removed = [name for name in older if name not in additions]
    if removed:
        remarks.append(f"{address}: files of the older bundle are removed: {listed(removed)}")
    if bundle.manifest.plans:
        remarks.append("plans are not pushed: nobody downloads code for a GPU; they build theirs")
    with explained(address):
        for done, (name, addition) in enumerate(additions.items()):
            progress(f"push {address}", done, len(additions), name)
            api.preupload_lfs_files(
                address.repository, [addition], revision=address.revision, free_memory=False
            )
        result = api.create_commit(
            address.repository,
            [*additions.values(), *(CommitOperationDelete(prefix + name) for name in removed)],
            commit_message=f"A bundle of wmdeploy: {bundle.path.resolve().name}",
            revision=address.revision,
            parent_commit=commit,
        )
    progress(f"push {address}", len(additions), len(additions))
    return result.commit_url


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _older_bundle(
    api: "HfApi", address: HubAddress, commit: str, listing: dict[str, int]
) -> list[str]:
    """The files of the bundle at an address, below it; none if nothing is there.

    Raises:
        HubError: something else is there.
    """
    prefix = f"{address.path}/" if address.path else ""
    below = [name.removeprefix(prefix) for name in listing if name.startswith(prefix)]
    files = [name for name in below if name not in _KEPT and not _is_hidden(name)]
    elsewhere = f"; choose a path of its own, such as hf://{address.repository}/bundle"
    if not files:
        return []
    for name in files:
        first = Path(name.split("/")[0])
        patterns = (MANIFEST_FILE, *BUNDLE_KIND.entries)
        if not any(first.match(pattern) for pattern in patterns) or MANIFEST_FILE not in files:
            raise HubError(f"{address}: holds {name}, which is of no bundle{elsewhere}")
    try:
        document = json.loads(_read(api, address, commit, prefix + MANIFEST_FILE))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not {"schema", BUNDLE_KIND.key} <= document.keys():
        raise HubError(f"{address}: its {MANIFEST_FILE} is of no bundle{elsewhere}")
    return files


def _is_ours(api: "HfApi", address: HubAddress, commit: str, prefix: str) -> bool:
    """Whether the card there was written by `push`."""
    with explained(address):
        return CARD_MARK.encode() in _read(api, address, commit, prefix + CARD_FILE)


def _read(api: "HfApi", address: HubAddress, commit: str, name: str) -> bytes:
    return read_document(Path(api.hf_hub_download(address.repository, name, revision=commit)))
