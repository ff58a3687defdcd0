"""How the commands print: results to standard output, everything else to standard error."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from cnn.runs.trained import Trained
from cnn.support.files import to_json
from cnn.support.streams import OutputLost, log
from cnn.support.terminal import screen_width, write_line
from cnn.support.text import best_weights, printable, short
from cnn.training.distributed import launcher

CLEAR_LINE = "\x1b[K"  # from the cursor on


def say(text: str) -> None:
    """Print a line to standard error; of several processes that train together, only the first one does."""
    if launcher.rank() == 0:
        write_line(printable(text), log())


def print_kept(text: str) -> None:
    """Print a result that is also saved in a file, so that an output that is closed is no error."""
    with suppress(OutputLost):
        write_line(text)


def say_weights(trained: Trained, asked: str | None) -> None:
    """Say which weights are used, if that was left to the command and they are not the last."""
    if asked is None and trained.about:
        say(f"weights: {best_weights(trained.about['epoch'])}; --weights last takes those of the end")


def say_notes(notes: Iterable[str]) -> None:
    """Print each note to standard error."""
    for note in notes:
        say(f"note: {note}")


class Status:
    """The progress of a long phase: one line that changes on a terminal, a line now and then in a log."""

    seconds = 10.0  # between two lines in a log

    def __init__(self) -> None:
        self._said = time.monotonic()

    def show(self, text: str) -> None:
        """Show ``text`` until something else is shown; an empty text clears the line."""
        width = self._width()
        if width is not None:
            print(f"\r{short(printable(text), width - 1)}{CLEAR_LINE}", end="", file=log(), flush=True)
        elif text and time.monotonic() - self._said >= self.seconds:
            self.say(text)

    def begin(self, text: str) -> None:
        """Show the phase that begins; in a log, it has a line of its own."""
        if self._width() is None:
            self.say(text)
        else:
            self.show(text)

    def say(self, text: str) -> None:
        """Say ``text`` in a line that stays."""
        self.clear()
        say(text)
        self._said = time.monotonic()

    def clear(self) -> None:
        """Remove what is shown."""
        if self._width() is not None:
            print(f"\r{CLEAR_LINE}", end="", file=log(), flush=True)

    def _width(self) -> int | None:
        return None if os.environ.get("TERM") == "dumb" else screen_width(log())


def print_json(value: Any) -> None:
    """Print a result for other programs."""
    print(to_json(value, indent=2))


def result_line(result: dict[str, Any]) -> str:
    """A test's result for people."""
    line = f"test accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f}, on {result['count']:,} images"
    return f"{line}; weights: {best_weights(result['epoch'])}" if "weights" in result else line
