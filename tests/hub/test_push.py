"""Pushing to a hub: what lies there afterwards, what is refused, and what is replaced."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Bundles
from tests.hub.conftest import files_of
from tests.hub.server import TOKEN, Hub
from wmdeploy.bundle import Bundle
from wmdeploy.errors import BundleError, HubError
from wmdeploy.hub.address import HubAddress
from wmdeploy.hub.download import resolve
from wmdeploy.hub.push import CARD_MARK, push

CARD = f"{CARD_MARK}\n# pong\n"
PONG = HubAddress.parse("hf://anna/pong")


@pytest.fixture(autouse=True)
def token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def bundle(bundles: Bundles) -> Bundle:
    return bundles()


def uploaded(bundle: Bundle) -> dict[str, bytes]:
    files = files_of(bundle.path)
    return {name: files[name] for name in ("manifest.json", *bundle.manifest.files)}


def test_what_was_pushed_is_downloaded_equal(hub: Hub, bundle: Bundle) -> None:
    url = push(bundle, PONG, CARD)
    repository = hub.repositories["models/anna/pong"]
    assert url == f"{hub.url}/anna/pong/commit/{repository.revisions['main']}"
    assert len(repository.commits) == 2 and not repository.private  # one of ours
    path = resolve("hf://anna/pong")
    assert files_of(path) == uploaded(bundle) | {"README.md": CARD.encode()}
    Bundle.open(path).verify()
    assert Bundle.open(path).manifest == bundle.manifest
    assert ".gitattributes" in repository.main  # the hub's own stays


def test_new_repository_is_private_if_asked(hub: Hub, bundle: Bundle) -> None:
    push(bundle, PONG, CARD, private=True)
    assert hub.repositories["models/anna/pong"].private


def test_path_and_branch_are_chosen(hub: Hub, bundle: Bundle) -> None:
    repository = hub.add("anna/pong", {"train.py": b"mine", "README.md": b"mine"})
    repository.commit(repository.main, "next")
    push(bundle, HubAddress.parse("hf://anna/pong/fp32/a@next"), CARD)
    assert repository.main == {"train.py": b"mine", "README.md": b"mine"}
    there = repository.files("next")
    assert there is not None and there.keys() > repository.main.keys()
    assert files_of(resolve("hf://anna/pong/fp32/a@next")) == uploaded(bundle) | {
        "README.md": CARD.encode()
    }


def test_older_bundle_is_replaced_and_what_it_had_more_is_named(hub: Hub, bundle: Bundle) -> None:
    push(bundle, PONG, CARD)
    repository = hub.repositories["models/anna/pong"]
    more = {"old.onnx": b"1", "plans/p.plan": b"2", "LICENSE": b"3", "README.md": b"# mine\n"}
    repository.commit(repository.main | more)
    remarks: list[str] = []
    push(bundle, PONG, CARD, remarks=remarks)
    assert "old.onnx" not in repository.main and "plans/p.plan" not in repository.main
    assert repository.main["LICENSE"] == b"3" and repository.main["README.md"] == b"# mine\n"
    assert len(remarks) == 2
    assert any("older bundle are removed: old.onnx, plans/p.plan" in line for line in remarks)
    assert any("README.md is somebody's own, and stays" in line for line in remarks)


def test_card_of_ours_is_replaced(hub: Hub, bundle: Bundle) -> None:
    push(bundle, PONG, CARD)
    push(bundle, PONG, CARD + "more\n")
    assert hub.repositories["models/anna/pong"].main["README.md"] == f"{CARD}more\n".encode()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.py": b""}, "holds train.py, which is of no bundle; choose a path of its own"),
        ({"a.onnx": b""}, "holds a.onnx, which is of no bundle"),
        ({"manifest.json": b"{}", "a.onnx": b""}, "its manifest.json is of no bundle"),
        ({"manifest.json": b"[" * 10**5}, "its manifest.json is of no bundle"),
        ({"manifest.json": b'{"schema": 2, "recipe": 1}', "x/y": b""}, "holds x/y, which"),
    ],
)
def test_anything_but_a_bundle_is_not_replaced(
    hub: Hub, bundle: Bundle, files: dict[str, bytes], message: str
) -> None:
    repository = hub.add("anna/pong", files)
    with pytest.raises(HubError, match=message):
        push(bundle, PONG, CARD)
    assert repository.main == files and not hub.blobs


def test_damaged_bundle_is_refused_before_the_hub_is_asked(
    hub: Hub, bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    weights = tmp_path / "copy" / "weights.data"
    data = bytearray(weights.read_bytes())
    data[0] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match="weights.data: sha256 is .* the file was altered"):
        push(Bundle.open(tmp_path / "copy"), PONG, CARD)
    assert not hub.requests


def test_no_token_is_one_line(hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="pushing needs a token; set HF_TOKEN to one that may write"):
        push(bundle, PONG, CARD)
    assert not hub.requests


def test_wrong_token_is_one_line_without_it(
    hub: Hub, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="set HF_TOKEN to a token that may") as caught:
        push(bundle, PONG, CARD)
    assert "\n" not in str(caught.value) and "hf_wrong" not in str(caught.value)
    assert not hub.repositories


def test_branch_that_is_not_there_is_one_line(hub: Hub, bundle: Bundle) -> None:
    branch = HubAddress.parse("hf://anna/pong@none")
    with pytest.raises(HubError, match="has no such model repository"):
        push(bundle, branch, CARD)
    assert not hub.repositories  # none is made for a branch that it would not have
    push(bundle, PONG, CARD)
    with pytest.raises(HubError, match="the repository has no revision none"):
        push(bundle, branch, CARD)


def test_data_repository_takes_no_bundle(hub: Hub, bundle: Bundle) -> None:
    with pytest.raises(HubError, match="is a data repository; expected hf://owner/name"):
        push(bundle, HubAddress.parse("hf://datasets/anna/pong"), CARD)
    assert not hub.requests


def test_push_beside_another_one_is_refused(hub: Hub, bundle: Bundle) -> None:
    push(bundle, PONG, CARD)
    repository = hub.repositories["models/anna/pong"]

    def meanwhile(task: str, done: int, total: int, detail: str = "") -> None:
        if done == 1:
            repository.commit(repository.main | {"LICENSE": b"new"})

    with pytest.raises(HubError, match="the repository was changed meanwhile; run the same"):
        push(bundle, PONG, CARD + "more\n", progress=meanwhile)
    assert repository.main["README.md"] == CARD.encode()


def test_plans_stay_at_home(hub: Hub, bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    (tmp_path / "copy" / "plans").mkdir()
    (tmp_path / "copy" / "plans" / "x.plan").write_bytes(b"code")
    push(Bundle.open(tmp_path / "copy"), PONG, CARD)
    assert not [n for n in hub.repositories["models/anna/pong"].main if n.startswith("plans")]


def test_bundle_of_a_cache_is_pushed_on(hub: Hub, bundle: Bundle) -> None:
    push(bundle, PONG, CARD)
    push(Bundle.open(resolve("hf://anna/pong")), HubAddress.parse("hf://ben/pong"), CARD)
    one, other = (hub.repositories[f"models/{name}/pong"].main for name in ("anna", "ben"))
    assert one == other


def test_manifest_that_is_pushed_is_json_of_ours(hub: Hub, bundle: Bundle) -> None:
    push(bundle, PONG, CARD)
    document = json.loads(hub.repositories["models/anna/pong"].main["manifest.json"])
    assert document["files"] == {
        name: dataclasses.asdict(record) for name, record in bundle.manifest.files.items()
    }
