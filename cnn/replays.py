"""Repeats what a network did with an array, for as long as nothing has moved.

In a steady step every array is where it was before, and asking each layer what to do with it would take
longer than doing it, one image at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends import Backend, recording, threads
from backends.buffer import Buffer
from cnn.layers.buffers import Array


@dataclass(frozen=True)
class _Replay:
    given: Array
    stamp: Any
    recording: recording.Recording
    result: Array | None


class Replays:
    """The latest recording of each direction."""

    def __init__(self, backend: Backend) -> None:
        self._records = backend.kernels.records
        self._latest: dict[Any, _Replay] = {}

    def run(
        self, direction: str, option: bool, given: Array, work: Callable[[], Array | None]
    ) -> Array | None:
        """``work()``, or what it did for the very same array the last time, once more."""
        if not self._records or recording.current() is not None:
            return work()
        key, stamp = (direction, option), (Buffer.allocations, threads.count())
        latest = self._latest.get(key)
        if latest is not None and latest.given is given and latest.stamp == stamp:
            latest.recording.replay()
            return latest.result
        self._latest.pop(key, None)  # frees what it held before work makes its arrays
        with recording.recording() as made:
            result = work()
        if made.complete and stamp == (Buffer.allocations, threads.count()):
            self._latest[key] = _Replay(given, stamp, made, result)
        return result
