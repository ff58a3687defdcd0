"""Checks of arguments: one place, one form of sentence."""

from math import inf
from numbers import Real
from typing import Any, TypeVar

from backends.kernels.window import Pair
from cnn.errors import ArgumentError

T = TypeVar("T")


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
    if not isinstance(value, Real) or not least <= float(value) < below:
        limit = f" and below {below:g}" if below < inf else ""
        raise ArgumentError(f"{name} is {value!r}, expected a number of at least {least:g}{limit}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} is {value!r}, expected True or False")
    return value


def shape(name: str, value: Any) -> tuple[int, ...]:
    """``value`` as a tuple if it is a row of whole numbers of at least 1."""
    if isinstance(value, str) or not hasattr(value, "__len__"):
        raise ArgumentError(f"{name} is {value!r}, expected a shape such as (1, 28, 28)")
    return tuple(whole(name, size) for size in value)


def instance(name: str, value: Any, kind: type[T], example: str) -> T:
    """``value`` if it is of this kind."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise ArgumentError(f"{name} is {value!r}, expected {article} {kind.__name__} such as {example}")
    return value
