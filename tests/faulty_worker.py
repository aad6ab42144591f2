"""A worker whose backend, if it is the one named in FAULTY, breaks in the middle of the bench."""

import os
import signal

from benchmarks import worker
from benchmarks.protocol import Block, Timed

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


if __name__ == "__main__":
    worker.Worker._block = faulty  # type: ignore[method-assign]
    worker.main()
