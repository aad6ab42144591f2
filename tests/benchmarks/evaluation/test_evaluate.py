"""Sessions beside the model's own predictions."""

import numpy as np
import torch

from tests.families.reference.ties import Tied
from wmdeploy.benchmarks.evaluation.evaluate import TiedRunner
from wmdeploy.bundle import Bundle
from wmdeploy.engines.base import load_backend


def test_evaluate_goes_on_from_the_models_codes(
    tie_bundle: Bundle, tied: Tied, pictures: np.ndarray
) -> None:
    codes = tied.model.encode(torch.tensor(pictures)[None])[1][0].numpy()
    runner = TiedRunner(load_backend("ort-cpu", tie_bundle), tied.model)
    found = list(runner.following(pictures, codes, None))
    exact = TiedRunner(load_backend("eager", tie_bundle), tied.model)
    expected = list(exact.following(pictures, codes, None))
    np.testing.assert_allclose(found, expected, atol=1)
    assert (runner.codes.codes, runner.codes.tied, exact.codes.tied) == (256, 1, 0)
    rolled = runner.rollout(pictures[:2], codes[:2], 8, None)
    np.testing.assert_allclose(rolled, exact.rollout(pictures[:2], codes[:2], 8, None), atol=1)
