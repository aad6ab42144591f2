"""The command line. Options become dataclasses, which become arguments; only this package prints.

Nothing heavy is imported until a command runs, so that `wmdeploy --help` answers at once.
"""

from wmdeploy.cli import bench, bisect, compare, export, sweep, train
from wmdeploy.cli.common import app, main

for module in (train, export, bench, compare, bisect, sweep):
    app.add_typer(module.commands)

__all__ = ["app", "main"]
