from pathlib import Path

import pytest

from wmdeploy.errors import HubError
from wmdeploy.hub.address import HubAddress, is_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://anna/pong", HubAddress("model", "anna/pong")),
        ("hf://anna/pong/", HubAddress("model", "anna/pong")),
        ("hf://anna/pong@v2", HubAddress("model", "anna/pong", "", "v2")),
        ("hf://anna/pong/fp16/a b.pt@refs/pr/1",
         HubAddress("model", "anna/pong", "fp16/a b.pt", "refs/pr/1")),
        ("hf://anna/p-1_2.x/d@c/e@main", HubAddress("model", "anna/p-1_2.x", "d@c/e", "main")),
        ("hf://datasets/anna/clips/a.mkv", HubAddress("dataset", "anna/clips", "a.mkv")),
    ],
)  # fmt: skip
def test_address_is_read_and_written(text: str, address: HubAddress) -> None:
    assert is_address(text) and is_address(Path(text))
    assert HubAddress.parse(text) == address == HubAddress.parse(Path(text))
    assert HubAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "hf://", "anna/pong", "hf://anna", "hf://anna@main", "hf://datasets/anna", "hf://anna/pong@",
        "hf://anna/pong@a..b", "hf://anna/pong@a b", "hf://anna/po ng", "hf://anna/..",
        "hf://../pong", "hf://anna/pong/../x", "hf://anna/a--b", "hf://anna/pong/a\\b",
        "hf://anna/pong/\x1b[2J", "hf://anna/pong/" + "x" * 300, "hf://ünna/pong",
    ],
)  # fmt: skip
def test_malformed_address_says_the_form(text: str) -> None:
    with pytest.raises(HubError, match=r"expected hf://owner/name\[/path\]\[@revision\]"):
        HubAddress.parse(text)


@pytest.mark.parametrize("path", ["tiny", "bundles/pong", "/hf:/a/b", "./x/hf:/a", "hf", ""])
def test_local_paths_are_no_addresses(path: str) -> None:
    assert not is_address(path)
