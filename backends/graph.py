"""A step that a device records once and then repeats by itself, with nothing left for the host to do."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from backends.errors import DeviceLost, Notice
from backends.memory import Array, Buffer

if TYPE_CHECKING:
    from backends.backend import Backend

Work = Callable[[], None]


class CaptureError(RuntimeError):
    """A step cannot be recorded on this device; the message says why."""


class Graph:
    """``step`` as a graph, for as long as no buffer moves; where there can be none, ``step`` itself.

    ``capture(step)`` runs the step some times to warm up, records it without running it and gives a callable
    that launches what was recorded; or it raises CaptureError. What the warm-up changes in ``state`` is put
    back, unless the device is lost.
    """

    def __init__(
        self, backend: "Backend", capture: Callable[[Work], Work], step: Work, state: Sequence[Array]
    ) -> None:
        self._backend = backend
        self._capture = capture
        self._step = step
        self._state = state
        self._launch: Work | None = None
        self._stamp: Any = None  # of the buffers whose places are recorded
        self.failure: str | None = None

    def __call__(self) -> None:
        with self._backend.active():
            if self.failure is None and self._stamp != Buffer.allocations:
                self._launch = None  # its memory goes before the next one's is asked for
                self._launch = self._record()
                self._stamp = Buffer.allocations
            (self._launch or self._step)()

    def _record(self) -> Work | None:
        before = [array.copy() for array in self._state]
        lost = False
        try:
            return self._capture(self._step)
        except DeviceLost:
            lost = True
            raise
        except CaptureError as error:
            self.failure = f"the step could not be recorded ({error})"
            warnings.warn(f"training goes on without a CUDA graph: {self.failure}", Notice, stacklevel=3)
            return None
        finally:
            if not lost:
                for array, old in zip(self._state, before, strict=True):
                    array[...] = old
