"""From an address on a hub to a local path, below the cache that huggingface_hub keeps.

    path = resolve("hf://anna/pong@v2")

- Everything is of one commit, which the hub names first. Files that are in the cache are not
  downloaded again; one that was cut short is not in the cache under its name.
- What a repository lists is a stranger's: a name that would leave its folder is refused, and so are
  more bytes than `LIMIT_VARIABLE` allows or the disk has, before any of them is downloaded.
- TensorRT plans are code for a GPU: what lies in a folder `plans` is left out, with a remark.
"""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from wmdeploy.bundle import PLANS_DIRECTORY
from wmdeploy.clips.folder import INDEX_NAME
from wmdeploy.clips.layout import listed
from wmdeploy.errors import HubError
from wmdeploy.hub.address import HubAddress, is_plain_name
from wmdeploy.hub.client import connect, explained, list_files, newest_commit
from wmdeploy.progress import Progress, silent

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LIMIT_VARIABLE = "WMDEPLOY_HUB_GIB"  # the most GiB that one address may stand for
LIMIT_GIB = 50.0


def resolve(
    source: str | Path, progress: Progress = silent, remarks: list[str] | None = None
) -> Path:
    """Download what an address stands for, and give its local path: read it, do not write there.

    Args:
        source: `HubAddress.parse` reads it.
        remarks: gets what was left out.

    Raises:
        HubError: the address is malformed, the hub cannot be reached, has no such thing or refuses
            it, or what it has is too large or leaves its folder.
        MissingError: huggingface_hub is not installed.
    """
    address = HubAddress.parse(source)
    limit = _limit()
    api = connect(f"reading {address}")
    with explained(address):
        commit = newest_commit(api, address)
        listing = list_files(api, address, commit)
    files = select(address, listing)
    plans = [name for name in files if _is_plan(name)]
    files = {name: size for name, size in files.items() if name not in plans}
    if plans and not files:
        raise HubError(f"{address}: plans are code for a GPU, and not downloaded; give the bundle")
    if plans and remarks is not None:
        remarks.append(
            f"{address}: {len(plans)} file{'' if len(plans) == 1 else 's'} in {PLANS_DIRECTORY}/ "
            "not downloaded: plans are code for a GPU; build them on a copy of the bundle"
        )
    _check_room(api, address, commit, files, limit)
    return _download(api, address, commit, files, progress)


def select(address: HubAddress, listing: dict[str, int]) -> dict[str, int]:
    """The files of a repository that an address stands for, with their bytes; hidden ones are none.

    For a folder all below it. For a file also what is read with it: the actions of a clip, the JSON
    files of its folder, all of a data folder. A path may go on inside a file of arrays.

    Raises:
        HubError: there is none, or a name leaves its folder.
    """
    visible = {
        name: size
        for name, size in listing.items()
        if not any(p.startswith(".") and p not in (".", "..") for p in name.split("/"))
    }
    path = PurePosixPath(address.path)
    file = next((str(p) for p in (path, *path.parents) if str(p) in visible), None)
    if file is not None:
        folder = PurePosixPath(file).parent
        together = str(folder / INDEX_NAME) in visible  # a data folder is read as a whole
        chosen = {
            name: size
            for name, size in visible.items()
            if PurePosixPath(name).parent == folder and (together or _is_read_with(name, file))
        }
    else:
        prefix = f"{address.path}/" if address.path else ""
        chosen = {name: size for name, size in visible.items() if name.startswith(prefix)}
    if not chosen:
        top = listed(sorted({name.split("/")[0] for name in visible})) or "no files"
        raise HubError(f"{address}: the repository has nothing there; it has {top}")
    for name in chosen:
        if not all(is_plain_name(part) for part in name.split("/")):
            raise HubError(f"{address}: the repository lists {name!r}, which is no name of a file")
    return chosen


def _is_read_with(name: str, file: str) -> bool:
    """Whether a file is read together with another one of its folder."""
    one, other = PurePosixPath(name), PurePosixPath(file)
    own = one.name.startswith(f"{other.stem}.") or one.name == "actions.npy"
    return name == file or own or one.suffix == ".json"


def _is_plan(name: str) -> bool:
    return PLANS_DIRECTORY in [part.casefold() for part in name.split("/")]


def _limit() -> float:
    """In GiB.

    Raises:
        HubError: the variable holds no number above 0.
    """
    text = os.environ.get(LIMIT_VARIABLE) or str(LIMIT_GIB)
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise HubError(f"{LIMIT_VARIABLE}: got {text!r}, expected a number of GiB above 0")
    return limit


def _check_room(
    api: "HfApi", address: HubAddress, commit: str, files: dict[str, int], limit: float
) -> None:
    """Refuse, before the first byte, what is too large for the limit or the disk.

    Raises:
        HubError: it is.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    size = sum(files.values())
    if size > limit * 2**30:
        raise HubError(
            f"{address}: {size / 2**30:.1f} GiB in {len(files)} files, expected at most "
            f"{limit:g} GiB; give a path below it, or set {LIMIT_VARIABLE} to a larger number"
        )
    missing = 0
    for name, bytes_ in files.items():
        cached = try_to_load_from_cache(
            address.repository, name, revision=commit, repo_type=address.kind
        )
        missing += 0 if isinstance(cached, str) else bytes_
    cache = Path(constants.HF_HUB_CACHE)
    place = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    if missing > (free := shutil.disk_usage(place).free):
        raise HubError(
            f"{address}: {missing / 2**30:.2f} GiB to download, and {place} has "
            f"{free / 2**30:.2f} GiB free; free some space, or set HF_HOME to another disk"
        )


def _download(
    api: "HfApi", address: HubAddress, commit: str, files: dict[str, int], progress: Progress
) -> Path:
    """Download files, whose names have been checked; the local path of the address."""
    task = f"download {address}"
    megabytes = max(1, round(sum(files.values()) / 1e6))
    done = 0
    root = Path()
    for name, size in sorted(files.items()):
        progress(task, min(megabytes, round(done / 1e6)), megabytes, f"MB; {name}")
        with explained(address):
            local = Path(
                api.hf_hub_download(
                    address.repository, name, revision=commit, repo_type=address.kind
                )
            )
        if (got := local.stat().st_size) != size:
            raise HubError(
                f"{address}: {name} has {got} bytes, expected {size}; remove {local.resolve()}, "
                "then run the same command again"
            )
        done += size
        root = local.parents[name.count("/")]
    progress(task, megabytes, megabytes)
    return root / address.path
