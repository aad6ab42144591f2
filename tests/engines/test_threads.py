"""Engines on the CPU, and the threads that they compute with."""

import pytest
import torch

from tests.conftest import Bundles
from wmdeploy.engines.base import Settings, load_backend


@pytest.mark.parametrize("threads", [1, 2])
def test_engines_compute_with_the_threads_asked_for(bundles: Bundles, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        ort = load_backend("ort-cpu", bundles(), Settings("cpu", threads=threads))
        options = ort.engines["decoder"]._session.get_session_options()  # type: ignore[attr-defined]
        assert options.intra_op_num_threads == threads
        load_backend("eager", bundles(), Settings("cpu", threads=threads))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
