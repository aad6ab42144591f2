"""A worker that knows the family of `tests.families.mean_pool` too."""

from tests.test_families import with_mean_pool
from wmdeploy import families
from wmdeploy.benchmarks.worker import __main__ as worker

if __name__ == "__main__":
    families.FAMILIES = with_mean_pool()
    worker.main()
