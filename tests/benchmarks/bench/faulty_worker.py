"""A worker whose backend, if it is the one named in FAULTY, breaks in the middle of the bench.

Or at once: HOW says what it says then.
"""

import os
import signal

from wmdeploy.benchmarks.protocol import Block, Job, Timed
from wmdeploy.benchmarks.worker import __main__ as worker
from wmdeploy.errors import BackendError, MissingError

blocks = 0
block = worker.Worker._block


def faulty(self: worker.Worker, command: Block) -> Timed:
    global blocks
    blocks += 1
    if self.job.label == os.environ["FAULTY"] and blocks > 4:
        if os.environ["HOW"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a planted fault")
    print("a library's chatter", end="")  # in front of the answer, on the same line
    return block(self, command)


def unwilling(self: worker.Worker, job: Job) -> None:
    if job.label == os.environ["FAULTY"]:
        kinds = {"refuses": BackendError, "lacks": MissingError}
        raise kinds[os.environ["HOW"]]("a planted reason")
    begin(self, job)


begin = worker.Worker.__init__

if __name__ == "__main__":
    if os.environ["HOW"] in ("refuses", "lacks"):
        worker.Worker.__init__ = unwilling  # type: ignore[method-assign]
    worker.Worker._block = faulty  # type: ignore[method-assign]
    worker.main()
