"""The tiny token model, and its bundle."""

import pytest

from wmdeploy.bundle import Bundle
from wmdeploy.clips.read import SAMPLE_CLIP
from wmdeploy.exporters.export import ExportOptions, export_bundle
from wmdeploy.families import load_model
from wmdeploy.families.tokens.network import TokensModel


@pytest.fixture(scope="session")
def tiny() -> TokensModel:
    model = load_model("tiny", seed=3, family="tokens")
    assert isinstance(model, TokensModel)
    return model


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Do not write to it."""
    output = tmp_path_factory.mktemp("bundles") / "tokens"
    options = ExportOptions(
        source="tiny", family="tokens", seed=3, output=output, clip=SAMPLE_CLIP, max_batch=4
    )
    return export_bundle(options)[0]
