"""Checks of what a layer's constructor is given."""

from typing import Any

from backends.kernels.window import Pair
from cnn.errors import ArgumentError


def whole(layer: str, name: str, value: Any, least: int = 1) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise ArgumentError(f"{layer}: {name} is {value!r}, expected a whole number of at least {least}")
    return value.__index__()


def pair(layer: str, name: str, value: Any, least: int = 1) -> Pair:
    """(vertical, horizontal) from one number or from two."""
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2:
        raise ArgumentError(f"{layer}: {name} is {value!r}, expected one number or two")
    return whole(layer, name, values[0], least), whole(layer, name, values[1], least)
