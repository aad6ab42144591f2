"""A worker that knows the families that sample, too."""

from tests.lean.make_bundles import FAMILIES
from wmdeploy import families
from wmdeploy.benchmarks.worker import __main__ as worker

if __name__ == "__main__":
    families.FAMILIES = FAMILIES | families.FAMILIES
    worker.main()
