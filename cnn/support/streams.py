"""Standard error, whose failures are ignored, and standard output, whose failures are reported."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

UNWRITABLE = (OSError, ValueError, AttributeError)  # of the system, of a stream closed in Python, of None


class OutputLost(OSError):
    """Standard output cannot be written: what was printed there is lost."""


class Log:
    """A stream for what is good to know: what cannot be written is left out, and the work goes on.

    Its reader may be gone, its disk full, its terminal closed. None stands for a stream that is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = stream

    def write(self, text: str) -> int:
        """Write ``text``, if that is possible."""
        with suppress(*UNWRITABLE):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what is in the buffer, if that is possible."""
        with suppress(*UNWRITABLE):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Output:
    """A stream for results: what cannot be written raises OutputLost, once; the rest goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_lost = False

    def write(self, text: str) -> int:
        """Write ``text``; OutputLost if that fails."""
        if text != "":  # with which libraries try a stream, and keep the error to themselves
            with self._telling():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what is in the buffer; OutputLost if that fails."""
        with self._telling():
            self._stream.flush()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._is_lost:
                return
            self._is_lost = True
            with suppress(OSError):  # Python flushes the stream once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise OutputLost(error.errno, error.strerror) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def log() -> TextIO:
    """Standard error, whatever may become of it."""
    return cast(TextIO, Log(sys.stderr))


@contextmanager
def guarded() -> Iterator[None]:
    """In the block, ``sys.stdout`` is an Output and ``sys.stderr`` a Log.

    A stream that was closed when the process began is opened on nothing: the next file that is opened
    would take its number, and get what is printed.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDONLY)  # so that what is printed there is known to be lost
            setattr(sys, name, os.fdopen(handle, "r" if name == "stdin" else "w", closefd=False))
    sys.stdout, sys.stderr = cast(TextIO, Output(sys.stdout)), log()
    try:
        yield
    finally:
        with suppress(OutputLost):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before
