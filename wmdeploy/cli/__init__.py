"""The command line: a file for each verb, whose options become the dataclass of its library.

Nothing heavy is imported until a command runs, so that `wmdeploy --help` answers at once.
"""

# In this order --help lists them.
# isort: off
from wmdeploy.cli import record, train, evaluate, convert, export, build_engine, rollout, inspect
from wmdeploy.cli import bench, compare, report, bisect, sweep, milestone, push, doctor

# isort: on
from wmdeploy.cli.common import app, main

__all__ = [
    "app", "bench", "bisect", "build_engine", "compare", "convert", "doctor", "evaluate", "export",
    "inspect", "main", "milestone", "push", "record", "report", "rollout", "sweep", "train",
]  # fmt: skip
