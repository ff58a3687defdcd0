"""Standard error, whose write errors are ignored, and standard output, whose write errors are raised."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

UNWRITABLE = (OSError, ValueError, AttributeError)  # of the system, of a stream closed in Python, of None


class OutputLost(OSError):
    """Standard output cannot be written, so results are lost."""


class Log:
    """A stream for progress and notes, whose write errors are ignored.

    Its reader may be gone, its disk full, or its terminal closed. None stands for a closed stream.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = stream

    def write(self, text: str) -> int:
        """Write ``text`` if possible."""
        with suppress(*UNWRITABLE):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer if possible."""
        with suppress(*UNWRITABLE):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output:
    """A stream for results: the first write error raises OutputLost; later ones are ignored."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_lost = False

    def write(self, text: str) -> int:
        """Write ``text``; raises OutputLost if that fails."""
        if text != "":  # libraries test a stream with an empty write, and ignore the error
            with self._raising():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer; raises OutputLost if that fails."""
        with self._raising():
            self._stream.flush()

    @contextmanager
    def _raising(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._is_lost:
                return
            self._is_lost = True
            with suppress(OSError):  # Python flushes the stream again at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise OutputLost(error.errno, error.strerror) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def log() -> TextIO:
    """Standard error as a Log."""
    return cast(TextIO, Log(sys.stderr))


@contextmanager
def guarded() -> Iterator[None]:
    """Inside the block, ``sys.stdout`` is an Output and ``sys.stderr`` a Log.

    Streams that were closed when the process started are opened on the null device. Otherwise the next
    file to be opened would get the stream's number and receive what is printed.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDONLY)  # read-only, so that printing there fails
            setattr(sys, name, os.fdopen(handle, "r" if name == "stdin" else "w", closefd=False))
    sys.stdout, sys.stderr = cast(TextIO, Output(sys.stdout)), log()
    try:
        yield
    finally:
        with suppress(OutputLost):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before
