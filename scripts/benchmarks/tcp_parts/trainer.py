"""Trains as one of the processes that the benchmark starts: python -m tcp_parts.trainer TASK.

TASK is a :class:`cnn.comparison.worker.Task` as JSON. The first process writes to the task's file what it
measured, and for each of several processes the bytes that it has sent and received over the cable.
"""

import json
import sys
from dataclasses import asdict

from cnn.comparison.worker import WARM_UP, Task, train
from cnn.support.files import write_json
from cnn.training.callbacks import Callback
from cnn.training.distributed import communicator
from cnn.training.run import Run
from tcp_parts.wire import sent_and_received


class Counter(Callback):
    """Counts the bytes of the steps that are timed."""

    everywhere = True

    def on_step(self, run: Run) -> None:
        if run.step == WARM_UP:
            self._before = sent_and_received()
        elif run.step == run.steps:
            now = sent_and_received()
            self.bytes = [after - before for after, before in zip(now, self._before, strict=True)]


def main() -> None:
    """Train, and write the result."""
    task = Task(**json.loads(sys.argv[1]))
    group = communicator(task.shards)
    counter = Counter()
    trained = train(task, group, [counter] if group.size > 1 else [])
    counted = group.gather(counter.bytes) if group.size > 1 else []
    if group.is_first:
        write_json(task.file, {"trained": asdict(trained), "bytes": counted})


if __name__ == "__main__":
    main()
