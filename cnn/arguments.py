"""Checks of arguments: one place, one form of sentence."""

from math import inf
from typing import Any

from backends.kernels.window import Pair
from cnn.errors import ArgumentError


def whole(name: str, value: Any, least: int = 1) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise ArgumentError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return value.__index__()


def pair(name: str, value: Any, least: int = 1) -> Pair:
    """(vertical, horizontal) from one number or from two."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ArgumentError(f"{name} is {value!r}, expected one number or two")
    return whole(name, values[0], least), whole(name, values[1], least)


def number(name: str, value: Any, least: float = 0, below: float = inf) -> float:
    """``value`` if it is a number from ``least`` on and less than ``below``."""
    if not isinstance(value, int | float) or not least <= value < below:
        limit = f" and below {below:g}" if below < inf else ""
        raise ArgumentError(f"{name} is {value!r}, expected a number of at least {least:g}{limit}")
    return value
