"""Repeats what a network did with an array, for as long as nothing has moved.

In a steady step every array is where it was before, and asking each layer what to do with it would take
longer than doing it, one image at a time.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from backends import Backend, recording
from backends.cpu import threads
from backends.memory import Array, Buffer


@dataclass(frozen=True)
class _Replay:
    given: tuple[Array, ...]
    recording: recording.Recording
    result: Any


class Replays:
    """The latest recording of each kind of work."""

    def __init__(self, backend: Backend) -> None:
        self._records = backend.kernels.records
        self._stamp: Any = None
        self._latest: dict[Hashable, _Replay] = {}

    def run(self, kind: Hashable, given: tuple[Array, ...], work: Callable[[], Any]) -> Any:
        """``work()``, or what that did the last time for the very same arrays, once more."""
        if not self._records or recording.current() is not None:
            return work()
        if self._stamp != self._now():
            self.forget()
        latest = self._latest.get(kind)
        if latest is not None and all(a is b for a, b in zip(latest.given, given, strict=True)):
            latest.recording.replay()
            return latest.result
        self._latest.pop(kind, None)  # frees what it held before work makes its arrays
        with recording.recording() as made:
            result = work()
        plain = all(array.flags.c_contiguous for array in given)  # others were copied on the way
        if made.complete and plain and self._stamp == self._now():
            self._latest[kind] = _Replay(given, made, result)
        return result

    def forget(self) -> None:
        """Drop all recordings."""
        self._latest.clear()
        self._stamp = self._now()

    def _now(self) -> Any:
        """What all recordings depend on: where buffers lie, and who computes."""
        return Buffer.allocations, threads.count(), get_ident()
