"""What a device was told to do, kept to be told again.

With the same arrays a step is the same calls every time, so they can be repeated without asking the layers
what to do. The CPU's compiled kernels are recorded as they are started, other functions when they go
through :meth:`Backend.run`.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Recording:
    """The calls made so far; ``complete`` until something was done that cannot be repeated from here."""

    def __init__(self) -> None:
        self.complete = True
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self._kept: list[Any] = []

    def add(self, function: Callable[..., Any], *arguments: Any, keep: Any = None, **named: Any) -> None:
        """Note a call; ``keep`` holds what it needs but does not name."""
        self._calls.append((function, arguments, named))
        self._kept.append(keep)

    def replay(self) -> None:
        """Make the calls again."""
        for function, arguments, named in self._calls:
            function(*arguments, **named)


_thread = threading.local()


def current() -> Recording | None:
    """The recording that is under way on this thread."""
    return getattr(_thread, "recording", None)


def spoil() -> None:
    """Note that something is done now that a replay would leave out."""
    made = current()
    if made is not None:
        made.complete = False


@contextmanager
def recording() -> Iterator[Recording]:
    """Record what this thread does inside the block."""
    before, made = current(), Recording()
    _thread.recording = made
    try:
        yield made
    finally:
        _thread.recording = before
