"""The bundles that come with a clone: whole, small, and as good as their page says."""

from pathlib import Path

import numpy as np
import pytest

from wmdeploy.bundle import Bundle
from wmdeploy.clips.source import ReadOptions
from wmdeploy.engines.base import load_backend
from wmdeploy.programs.session import Session
from wmdeploy.serve.world import find_world

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").iterdir())
LARGEST = 4_000_000  # bytes: they are in everybody's clone


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_can_be_played(path: Path) -> None:
    bundle = Bundle.open(path)
    bundle.verify()
    assert sum(file.stat().st_size for file in path.iterdir()) <= LARGEST
    play = bundle.manifest.play
    assert play is not None and play.game.lower() == path.name
    assert play.prediction is not None
    assert play.prediction.next_db > play.prediction.next_copy_db
    backend = load_backend("ort-cpu", bundle)
    world = find_world(backend, [], ReadOptions(), None, bundle=bundle, remarks=[])
    assert len(world.starts) == 6 and world.meanings == play.actions
    assert dict(world.about)["Trained on"].endswith("frames")
    dreams = []
    for action in range(2, 4):  # keys are obeyed
        session = Session(backend)
        session.reset(world.starts[0].frames, world.starts[0].actions)
        dreams.append(np.concatenate([session.step(action) for _ in range(8)]))
    assert not np.array_equal(dreams[0], dreams[1])
