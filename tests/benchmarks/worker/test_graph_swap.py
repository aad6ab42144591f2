"""Which graph brings the error in."""

from collections.abc import Mapping

import numpy as np
import pytest

from tests.conftest import MICRO, Bundles
from wmdeploy.benchmarks.worker.graph_substitution import substitute_graphs
from wmdeploy.bundle import Bundle
from wmdeploy.clips.clip import Clip
from wmdeploy.engines.base import Settings, load_backend
from wmdeploy.manifest import Precision
from wmdeploy.programs.arrays import Array

S = MICRO.temporal.context


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("wrong", ["encoder", "step", "decoder"])
def test_swap_finds_the_wrong_graph(
    bundles: Bundles, clip: Clip, precision: Precision, wrong: str
) -> None:
    bundle = bundles("token", precision)
    backend = load_backend("ort-cpu", bundle, Settings("cpu"))
    engine = backend.engines[wrong]
    right = engine.run

    def run(
        feeds: Mapping[str, Array], into: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        outputs = right(feeds, into)
        spec = engine.outputs[0]
        given = outputs[spec.name]
        moved = given // 2 if spec.dtype == "uint8" else (given * 1.2).astype(given.dtype)
        return outputs | {spec.name: moved}

    engine.run = run  # type: ignore[method-assign]
    found = substitute_graphs(backend, bundle, (clip.frames, None), 3, S + 2)
    assert found.skipped is None and set(found.worst_db) == {
        "encoder",
        "prefill",
        "step",
        "decoder",
    }
    assert min(found.worst_db, key=lambda name: found.worst_db[name]) == wrong
    others = [db for name, db in found.worst_db.items() if name != wrong]
    assert min(others) > found.worst_db[wrong] + 6


def test_swap_is_skipped_for_graphs_of_its_own(bundles: Bundles, clip: Clip) -> None:
    backend = load_backend("eager", bundles(), Settings("cpu"))
    found = substitute_graphs(backend, bundles(), (clip.frames, None), 4, 4)
    assert not found.worst_db and found.skipped and "graphs of its own" in found.skipped


def test_swap_does_not_blame_the_encoder_for_a_tie(
    tie_bundle: Bundle, pictures: np.ndarray
) -> None:
    backend = load_backend("ort-cpu", tie_bundle)
    found = substitute_graphs(backend, tie_bundle, (pictures, None), 2, 2 * S)
    assert found.worst_db["encoder"] > 60
