"""Sites of small bundles, with or without the real runtime."""

from pathlib import Path

import pytest

from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import load_backend
from wmdeploy.exporters.site.runtime import FILES
from wmdeploy.exporters.site.write import Site, SiteOptions, write_site


def written(options: SiteOptions) -> Site:
    """As the command does it."""
    return write_site(options, load_backend("ort-cpu", Bundle.open(options.bundle)), [])


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder that looks like the npm package's `dist`."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(b"of " + name.encode())
    return folder
