"""`python -m wmdeploy.cli` is `wmdeploy`."""

from wmdeploy.cli import main

main()
