"""Values inside PyTorch's trace."""

import pytest

from tests.benchmarks.bisect.faults import ACTED, Exact
from tests.conftest import Bundles
from wmdeploy.errors import ExportError


def test_trace_that_is_not_the_module_is_refused(bundles: Bundles, exact: Exact) -> None:
    pytorch, feeds = exact(bundles(*ACTED), "step")
    outputs = pytorch.run(feeds, lambda operation, value, given: value)
    pytorch.check(feeds, outputs)
    with pytest.raises(ExportError, match="trace gives another hidden than the module"):
        pytorch.check(feeds, outputs | {"hidden": outputs["hidden"] * 1.01})
