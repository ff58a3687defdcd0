"""A step that a device records once and then repeats.

In a steady step every array is where it was before, so the step is the same calls each time. On the CPU
these calls are kept in a list (:class:`RepeatedStep`); a GPU records them itself (:class:`CapturedStep`).
"""

import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from backends.errors import DeviceLost, Notice
from backends.memory import Array

Work = Callable[[], None]


class Recording:
    """The calls that a step has made, in their order."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self._kept: list[Any] = []

    def add(self, function: Callable[..., Any], *arguments: Any, keep: Any = None, **named: Any) -> None:
        """Add a call; ``keep`` holds objects that the call needs but does not name."""
        self._calls.append((function, arguments, named))
        self._kept.append(keep)

    def replay(self) -> None:
        """Make all calls again."""
        for function, arguments, named in self._calls:
            function(*arguments, **named)


class Rehearsal:
    """A step is run without its calls, only to find out what it needs."""

    def __init__(self) -> None:
        self.needed: list[Any] = []


class RehearsalOver(Exception):
    """The step goes on with the result of a call, which a rehearsal does not make."""


_thread = threading.local()


def current() -> Recording | Rehearsal | None:
    """The recording or rehearsal in progress on this thread."""
    return getattr(_thread, "recording", None)


def rehearsal() -> Rehearsal | None:
    """The rehearsal in progress on this thread."""
    found = current()
    return found if isinstance(found, Rehearsal) else None


@contextmanager
def _recording_into(recording: Recording | Rehearsal | None) -> Iterator[None]:
    before, _thread.recording = current(), recording
    try:
        yield
    finally:
        _thread.recording = before


def rehearse(step: Work) -> list[Any]:
    """What ``step`` adds to a :class:`Rehearsal`; nothing is computed and no array is changed.

    It ends at the first call of a layer that is no list of kernel calls, and at any error: the real step has
    the same.
    """
    trial = Rehearsal()
    with _recording_into(trial), suppress(Exception):
        step()
    return trial.needed


def launch(function: Callable[..., Any], *arguments: Any, keep: Any = None, **named: Any) -> None:
    """Call ``function``, which does nothing but write into arrays, and add the call to a recording."""
    recording = current()
    if recording is None:
        function(*arguments, **named)
    elif isinstance(recording, Recording):
        with _recording_into(None):
            function(*arguments, **named)
        recording.add(function, *arguments, keep=keep, **named)


def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call ``function``. A recording in progress keeps this as one call, whatever happens inside it.

    When the call is repeated, an array that the function returns is copied to where it was the first time
    if it is elsewhere, so that the calls that follow find it there.
    """
    recording = current()
    if recording is None:
        return function(*arguments, **named)
    if isinstance(recording, Rehearsal):
        raise RehearsalOver
    with _recording_into(None):
        result = function(*arguments, **named)
    if result is None:
        recording.add(function, *arguments, **named)
    else:
        recording.add(_call_again, function, arguments, named, result)
    return result


def _call_again(
    function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any], first: Array
) -> None:
    result = function(*arguments, **named)
    if result is not first:
        first[...] = result


def recordable(step: Work) -> Work:
    """Declare that ``step`` works through kernels and :func:`call` alone, so that it can be recorded."""
    step.recordable = True  # type: ignore[attr-defined]
    return step


class RepeatedStep:
    """A recordable ``step`` as the list of its calls, which is made again when ``stamp()`` changes.

    ``prepare(step)`` is called once, before the first step.
    """

    def __init__(
        self, step: Work, stamp: Callable[[], Hashable], prepare: Callable[[Work], None] = lambda step: None
    ) -> None:
        self._step = step
        self._stamp = stamp
        self._prepare: Callable[[Work], None] | None = prepare
        self._recording: Recording | None = None
        self._recorded_at: Hashable = None

    def __call__(self) -> None:
        stamp = self._stamp()
        if self._recording is not None and stamp == self._recorded_at:
            self._recording.replay()
            return
        if self._prepare:
            self._prepare(self._step)
            self._prepare, stamp = None, self._stamp()
        self._recording = None  # its arrays are freed before new ones are made
        recording = Recording()
        with _recording_into(recording):
            self._step()
        if stamp == self._stamp():  # otherwise buffers have grown, and early calls have outdated arrays
            self._recording, self._recorded_at = recording, stamp


class CaptureError(RuntimeError):
    """A step cannot be recorded on this device; the message says why."""


class CapturedStep:
    """``step`` as a graph that the device launches; ``step`` itself if it cannot be recorded.

    ``capture(step)`` runs the step a few times to warm up, records it without running it, and returns a
    callable that launches the recording; or it raises CaptureError. The arrays in ``state`` are restored
    after the warm-up, unless the device is lost. ``device`` is a :class:`backends.Backend`.
    """

    def __init__(
        self, device: Any, capture: Callable[[Work], Work], step: Work, state: Sequence[Array]
    ) -> None:
        self._device = device
        self._capture = capture
        self._step = step
        self._state = state
        self._launch: Work | None = None
        self._recorded_at: Hashable = None
        self.failure: str | None = None

    def __call__(self) -> None:
        if not self.is_ready:
            self.capture()
        with self._device.active():
            (self._launch or self._step)()

    @property
    def is_ready(self) -> bool:
        """Whether the next call needs no recording before it."""
        return self.failure is not None or self._recorded_at == self._device.stamp()

    def capture(self) -> None:
        """Record the step now; ``failure`` says why if it cannot be recorded."""
        with self._device.active():
            self._launch = None  # its memory is freed before the next recording asks for more
            self._launch = self._record()
            self._recorded_at = self._device.stamp()

    def _record(self) -> Work | None:
        before = [array.copy() for array in self._state]
        lost = False
        try:
            return self._capture(self._step)
        except DeviceLost:
            lost = True
            raise
        except CaptureError as error:
            self.failure = f"it could not be recorded ({error})"
            message = f"the step runs without a CUDA graph, which is slower: {self.failure}"
            warnings.warn(message, Notice, stacklevel=3)
            return None
        finally:
            if not lost:
                for array, old in zip(self._state, before, strict=True):
                    array[...] = old
