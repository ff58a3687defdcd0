"""What the commands print, and where."""

from contextlib import suppress
from typing import Any

from cnn.files import to_json
from cnn.runs import RunFolder
from cnn.streams import OutputLost, log
from cnn.terminal import write_line
from cnn.text import best_weights, printable


def say(text: str) -> None:
    """Something to know while the result is on its way: to standard error."""
    write_line(printable(text), log())


def print_kept(text: str) -> None:
    """A result that files hold too: if it cannot be printed, nothing is lost."""
    with suppress(OutputLost):
        print(text, flush=True)


def say_weights(folder: RunFolder, asked: str | None) -> None:
    """Say which weights are used, if that was left to the command and they are not the last."""
    about = folder.about(folder.require_weights(asked))
    if asked is None and about:
        say(f"weights: {best_weights(about['epoch'])}; --weights last takes those of the end")


def say_note(text: str | None) -> None:
    """Something to know, if there is anything."""
    if text:
        say(f"note: {text}")


def print_json(value: Any) -> None:
    """A result for programs."""
    print(to_json(value, indent=2))


def result_line(result: dict[str, Any]) -> str:
    """A test's result for people."""
    line = f"test accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f}, on {result['count']:,} images"
    return f"{line}; weights: {best_weights(result['epoch'])}" if "weights" in result else line
