"""How a setting of a run is declared, read from text and checked."""

import os
from collections.abc import Callable, Collection
from dataclasses import MISSING, field
from typing import Any, TypeVar

from cnn import data, models
from cnn.models import sources
from cnn.support.arguments import number, whole
from cnn.support.errors import ArgumentError
from cnn.support.text import short

T = TypeVar("T")


def setting(
    default: T,
    panel: str,
    help: str,
    *,
    shown: str | None = None,
    choices: Collection[str] = (),
    parse: Callable[[Any], Any] | None = None,
    check: Callable[[str, Any], object] | None = None,
    before: Any = MISSING,
    changeable: bool = False,
    alias: str | None = None,
) -> T:
    """A field of Config; its option, its key in a --config file and its place in config.json follow from it.

    ``shown`` stands in --help as the default if the value does not explain itself, ``choices`` are for the
    shell's completion, and ``parse`` turns the option's text into the value. ``check(name, value)`` raises
    ArgumentError for a value that is wrong for any data. ``before`` is the value of runs that are older than
    the setting; a config.json that lacks a setting without ``before`` is damaged. A ``changeable`` setting
    may be given another value when a run is resumed. ``alias`` is another name of the option.
    """
    about = {"panel": panel, "help": help, "shown": shown, "choices": choices, "parse": parse, "check": check}
    more = {"before": before, "changeable": changeable, "alias": alias}
    return field(default=default, metadata=about | more)


def as_flag(value: Any) -> str:
    """A value of a file as it would stand on the command line, so that it is checked like one."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def cut(text: str | None) -> list[str] | None:
    """Cut "0, 1" into ["0", "1"]."""
    return None if text is None else [part.strip() for part in text.split(",")]


def parts(text: str | None) -> list[str] | None:
    """Cut "flip, shift=2" into ["flip", "shift=2"]; "none" is an empty list, as is "" from a file."""
    return [] if text in ("none", "") else cut(text)


def sides(text: str | None) -> list[int] | None:
    """Turn "48x64" into [48, 64] and "64" into [64, 64]; a list in a file arrives as "48,64"."""
    if text is None:
        return None
    try:
        found = [int(side) for side in text.lower().replace("x", ",").split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 2) or min(found) < 1:
        raise ArgumentError(
            f"--size is {short(text, 100)!r}, expected a height and a width as in 64 or 48x64"
        )
    return found if len(found) == 2 else found * 2


def absolute(data_set: str) -> str:
    """The data set's path in full, so that a run's folder finds it from anywhere; a name stays a name."""
    is_path = data_set not in data.NAMES and os.path.exists(data_set)
    return os.path.realpath(data_set) if is_path else data_set


def absolute_model(model: str) -> str:
    """The full path of a user's own network; a name stays a name."""
    return os.path.abspath(model) if model not in models.MODELS and sources.is_own(model) else model


def absolute_base(path: str | None) -> str | None:
    """The full path of the run or the file from which a run starts."""
    return None if path is None else os.path.abspath(path)


def require_balanced(name: str, value: str | None) -> None:
    """Raise ArgumentError for a word other than "balanced"."""
    if value not in (None, "balanced"):
        raise ArgumentError(f"--class-weights is {value!r}, expected balanced")


def require_count(name: str, value: int | None) -> None:
    """Raise ArgumentError unless ``value`` is a whole number above 0, or None."""
    if value is not None:
        whole(name, value)


def require_accuracy(name: str, value: float | None) -> None:
    """Raise ArgumentError unless ``value`` is an accuracy that can be reached."""
    if value is not None:
        number(name, value, most=1)


def require_share(name: str, value: float) -> None:
    """Raise ArgumentError unless ``value`` is a share of the training images that leaves some."""
    if not 0 <= value < 1:
        raise ArgumentError(f"--{name} is {value:g}: expected a share of the training images, such as 0.1")
