"""What the commands print, and where."""

from contextlib import suppress
from typing import Any

from cnn.files import to_json
from cnn.streams import OutputLost, log
from cnn.terminal import write_line
from cnn.text import printable


def say(text: str) -> None:
    """Something to know while the result is on its way: to standard error."""
    write_line(printable(text), log())


def print_kept(text: str) -> None:
    """A result that files hold too: if it cannot be printed, nothing is lost."""
    with suppress(OutputLost):
        print(text, flush=True)


def print_json(value: Any) -> None:
    """A result for programs."""
    print(to_json(value, indent=2))


def result_line(result: dict[str, float]) -> str:
    """A test's result for people."""
    return f"test accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f}, on {result['count']:,} images"
