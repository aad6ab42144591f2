"""Reading from a hub: what arrives, what is refused, and what is left behind."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from tests.conftest import Bundles
from tests.hub.conftest import files_of
from tests.hub.server import TOKEN, Hub
from wmdeploy.bundle import Bundle
from wmdeploy.errors import HubError
from wmdeploy.hub.address import HubAddress
from wmdeploy.hub.download import resolve, select


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub waits before it tries again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def names_in(cache: Path) -> set[str]:
    """Of whole files: what is still being downloaded has no name."""
    return {path.name for path in cache.rglob("snapshots/**/*") if not path.is_dir()}


def test_bundle_arrives_whole(hub: Hub, bundles: Bundles) -> None:
    files = files_of(bundles().path)
    hub.add("anna/pong", files | {"README.md": b"# pong\n"})
    path = resolve("hf://anna/pong")
    Bundle.open(path).verify()
    assert files_of(path) == {n: d for n, d in files.items() if n != ".gitattributes"} | {
        "README.md": b"# pong\n"
    }


def test_progress_ends_at_all_of_it(hub: Hub) -> None:
    hub.add("anna/pong", {"a": bytes(2_000_000), "b": bytes(3_000_000)})
    shown: list[tuple[int, int]] = []
    resolve("hf://anna/pong", lambda task, done, total, detail="": shown.append((done, total)))
    assert shown == [(0, 5), (2, 5), (5, 5)]


def test_second_download_asks_for_no_file(hub: Hub) -> None:
    hub.add("anna/pong", {"a": b"1", "b/c": b"2"})
    first = resolve("hf://anna/pong")
    count = len(hub.downloads())
    assert count >= 2 and resolve("hf://anna/pong") == first
    assert len(hub.downloads()) == count


def test_path_brings_what_is_below_it(hub: Hub) -> None:
    hub.add("anna/pong", {"a/x": b"1", "a/y/z": b"2", "ab/x": b"3", "x": b"4"})
    path = resolve("hf://anna/pong/a")
    assert files_of(path) == {"x": b"1", "y/z": b"2"}
    assert files_of(path.parent) == {"a/x": b"1", "a/y/z": b"2"}


def test_data_repository_is_another_one(hub: Hub) -> None:
    hub.add("anna/pong", {"a": b"model"})
    hub.add("anna/pong", {"a": b"data"}, kind="datasets")
    assert resolve("hf://datasets/anna/pong/a").read_bytes() == b"data"
    assert resolve("hf://anna/pong/a").read_bytes() == b"model"


def test_revision_is_chosen(hub: Hub) -> None:
    repository = hub.add("anna/pong", {"a": b"old"})
    old = repository.revisions["main"]
    repository.commit({"a": b"branch"}, "v2")
    repository.commit({"a": b"new"})
    for revision, content in (("", b"new"), ("@v2", b"branch"), (f"@{old}", b"old")):
        assert resolve(f"hf://anna/pong/a{revision}").read_bytes() == content


def test_file_brings_what_is_read_with_it() -> None:
    names = ["d/c-0.mkv", "d/c-0.actions.npy", "d/c-00.mkv", "d/x.json", "d/e/c-0.x", "d/x.h5"]
    listing = dict.fromkeys([*names, "y.json"], 1)
    chosen = select(HubAddress("model", "a/b", "d/c-0.mkv"), listing)
    assert set(chosen) == {"d/c-0.mkv", "d/c-0.actions.npy", "d/x.json"}
    inside = select(HubAddress("model", "a/b", "d/x.h5/demo_1/obs"), listing)
    assert set(inside) == {"d/x.h5", "d/x.json"}


def test_clip_of_a_data_folder_brings_the_folder() -> None:
    listing = dict.fromkeys(["d/clips.json", "d/c-0.mkv", "d/c-1.mkv", "d/e/f", "c-0.mkv"], 1)
    chosen = select(HubAddress("dataset", "a/b", "d/c-0.mkv"), listing)
    assert set(chosen) == {"d/clips.json", "d/c-0.mkv", "d/c-1.mkv"}


def test_plans_are_left_out(hub: Hub, hub_cache: Path) -> None:
    hub.add("anna/pong", {"a": b"1", "plans/x.plan": b"code", "b/Plans/y": b"code"})
    remarks: list[str] = []
    resolve("hf://anna/pong", remarks=remarks)
    assert names_in(hub_cache) == {"a"}
    assert len(remarks) == 1 and "2 files in plans/ not downloaded: plans are code" in remarks[0]
    with pytest.raises(HubError, match="plans are code for a GPU, and not downloaded"):
        resolve("hf://anna/pong/plans")
    assert names_in(hub_cache) == {"a"}


@pytest.mark.parametrize(
    "name",
    [
        "../out", "a/../../out", "/etc/out", "a//b", "a/./b", "..", "a\\..\\out", "a\x1b[2J",
        "x" * 300,
    ],
)  # fmt: skip
def test_listed_names_never_leave_the_cache(hub: Hub, hub_cache: Path, name: str) -> None:
    hub.add("anna/pong", {"a": b"1", name: b"2"})
    with pytest.raises(HubError, match="the repository lists .*, which is no name of a file"):
        resolve("hf://anna/pong")
    assert not hub.downloads() and not hub_cache.exists()
    assert not list(hub_cache.parent.rglob("out"))


def test_odd_names_that_are_only_names_arrive(hub: Hub) -> None:
    files = {"[a]*?.npz": b"1", "ü/ä b.png": b"2", "c#d%20e": b"3", "...": b"", "a...": b"4"}
    hub.add("anna/pong", files)
    assert files_of(resolve("hf://anna/pong")) == {n: d for n, d in files.items() if n != "..."}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf://anna/none", "has no such model repository, or it is private; check the name"),
        ("hf://datasets/anna/pong", "has no such dataset repository"),
        ("hf://anna/hidden", "or it is private; check the name, or set HF_TOKEN"),
        ("hf://anna/gated", "asks for the consent of its owners; agree on its page"),
        ("hf://anna/pong@v3", "the repository has no revision v3"),
        ("hf://anna/pong/none", "the repository has nothing there; it has a, b"),
        ("hf://anna", "expected hf://owner/name"),
    ],
)
def test_what_the_hub_has_not_is_one_line(
    hub: Hub, hub_cache: Path, source: str, message: str
) -> None:
    hub.add("anna/pong", {"a": b"1", "b/c": b"2"})
    hub.add("anna/hidden", {"a": b"1"}, private=True)
    hub.add("anna/gated", {"a": b"1"}, gated=True)
    with pytest.raises(HubError) as caught:
        resolve(source)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not names_in(hub_cache) and not list(hub_cache.rglob("blobs"))


def test_token_opens_a_private_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("anna/hidden", {"a": b"1"}, private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert resolve("hf://anna/hidden/a").read_bytes() == b"1"
    with pytest.raises(HubError, match="has no such model repository") as caught:
        resolve("hf://anna/none")
    assert TOKEN not in str(caught.value)


@pytest.mark.usefixtures("no_waiting")
def test_hub_that_is_gone_is_one_line(
    hub: Hub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://somebody:secret@127.0.0.1:9")
    with pytest.raises(
        HubError, match=r"127.0.0.1:9 cannot be reached \(.*check the netw"
    ) as caught:
        resolve("hf://anna/pong")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert not hub_cache.exists()


@pytest.mark.usefixtures("no_waiting")
def test_download_that_is_cut_is_not_taken_for_whole(hub: Hub, hub_cache: Path) -> None:
    files = {"a": b"1", "b": bytes(range(256)) * 100, "c": b"3"}
    hub.add("anna/pong", files)
    hub.cut["b"] = 1000
    with pytest.raises(HubError, match="hf://anna/pong: "):
        resolve("hf://anna/pong")
    assert "b" not in names_in(hub_cache)
    hub.cut.clear()
    assert files_of(resolve("hf://anna/pong")) == files


def test_file_of_another_size_than_listed_is_refused(hub: Hub) -> None:
    hub.add("anna/pong", {"a": b"123"})
    hub.sizes["a"] = 4
    with pytest.raises(HubError, match="a has 3 bytes, expected 4; remove .*blobs"):
        resolve("hf://anna/pong")


def test_too_many_bytes_are_refused_before_the_first(
    hub: Hub, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("anna/pong", {"a": b"1", "b": b"2"})
    hub.sizes["a"] = 60 * 2**30
    with pytest.raises(HubError, match="60.0 GiB in 2 files, expected at most 50 GiB; .*_HUB_GIB"):
        resolve("hf://anna/pong")
    assert resolve("hf://anna/pong/b").read_bytes() == b"2"
    monkeypatch.setenv("WMDEPLOY_HUB_GIB", "100")
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2**30))
    with pytest.raises(HubError, match=r"60.00 GiB to download, and .* has 1.00 GiB free; free so"):
        resolve("hf://anna/pong")
    assert names_in(hub_cache) == {"b"}


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan"])
def test_limit_that_is_no_number_is_refused(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("WMDEPLOY_HUB_GIB", text)
    with pytest.raises(HubError, match="WMDEPLOY_HUB_GIB: got .* expected a number of GiB above 0"):
        resolve("hf://anna/pong")


def test_endless_listing_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wmdeploy.hub.client.MOST_FILES", 5)
    hub.add("anna/pong", {str(i): b"" for i in range(6)})
    with pytest.raises(HubError, match="has more than 5 files"):
        resolve("hf://anna/pong/1")


def test_requests_say_nothing_of_the_machine(hub: Hub) -> None:
    hub.add("anna/pong", {"a": b"1"})
    resolve("hf://anna/pong")
    assert hub.agents and not any("torch" in agent for agent in hub.agents)
