"""What the commands print, and where."""

import json
import sys
from contextlib import suppress
from typing import Any

from cnn.text import printable


def say(text: str) -> None:
    """Something to know while the result is on its way: to standard error."""
    with suppress(BrokenPipeError):  # nobody listens any more
        print(printable(text), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result for programs."""
    print(json.dumps(value, indent=2))


def result_line(result: dict[str, float]) -> str:
    """A test's result for people."""
    return f"test accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f}, on {result['count']:,} images"
