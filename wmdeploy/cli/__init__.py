"""The command line: a file for each verb, whose options become the dataclass of its library.

Nothing heavy is imported until a command runs, so that `wmdeploy --help` answers at once.
"""

# In this order --help lists them.
# isort: off
from wmdeploy.cli import record, train, distill, evaluate, convert, export, build_engine, rollout
from wmdeploy.cli import play, serve, site, inspect, bench, compare, report, profile, bisect, sweep
from wmdeploy.cli import milestone, push, doctor

# isort: on
from wmdeploy.cli.common import app, main

__all__ = [
    "app", "bench", "bisect", "build_engine", "compare", "convert", "distill", "doctor", "evaluate",
    "export", "inspect", "main", "milestone", "play", "profile", "push", "record", "report",
    "rollout", "serve", "site", "sweep", "train",
]  # fmt: skip
