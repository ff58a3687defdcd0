"""Checks of arguments. All of them raise ArgumentError in the same form."""

import operator
from collections.abc import Callable, Sequence
from math import inf, isfinite, nan, prod
from numbers import Real
from typing import Any, TypeVar

import numpy as np

from backends.kernels.window import Pair
from backends.text import did_you_mean
from cnn.support.errors import ArgumentError
from cnn.support.text import short

T = TypeVar("T")

LARGEST_SIZE = 2**31 - 1  # the longest axis that kernels can index
MOST_NUMBERS = 2**44  # far more than fit in any memory, and far fewer than NumPy can count


def whole(name: str, value: Any, least: int = 1) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(f"{name} is {shown(value)}, expected a whole number of at least {least}")
    return number


def size(name: str, value: Any, least: int = 1) -> int:
    """``value`` if it is a whole number from ``least`` to LARGEST_SIZE."""
    number = whole(name, value, least)
    if number > LARGEST_SIZE:
        raise ArgumentError(f"{name} is {shown(value)}, expected a whole number of at most {LARGEST_SIZE}")
    return number


def pair(name: str, value: Any, least: int = 1) -> Pair:
    """(vertical, horizontal) sizes from one or two numbers."""
    values = row(value) or (value, value)
    if len(values) != 2:
        raise ArgumentError(f"{name} is {shown(value)}, expected one number or two")
    return size(name, values[0], least), size(name, values[1], least)


def number(name: str, value: Any, least: float = 0, below: float = inf, most: float = inf) -> float:
    """``value`` if it is a finite number, at least ``least``, less than ``below`` and at most ``most``."""
    try:
        figure = float(value) if isinstance(value, Real) and not isinstance(value, bool) else nan
    except OverflowError:  # an integer too large for a float
        figure = inf
    if not (isfinite(figure) and least <= figure < below and figure <= most):
        kind = "finite number" if figure == inf else "number"
        limit = f" and below {below:g}" if below < inf else f" and at most {most:g}" if most < inf else ""
        raise ArgumentError(f"{name} is {shown(value)}, expected a {kind} of at least {least:g}{limit}")
    return figure


def positive(name: str, value: Any) -> float:
    """``value`` if it is a finite number above 0."""
    if not (figure := number(name, value)):
        raise ArgumentError(f"{name} is {shown(value)}, expected a number above 0")
    return figure


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"{name} is {shown(value)}, expected True or False")
    return bool(value)


def shape(name: str, value: Any) -> tuple[int, ...]:
    """``value`` as a tuple, if it is a sequence of one or more sizes."""
    values = row(value)
    if not values:
        raise ArgumentError(f"{name} is {shown(value)}, expected a shape such as (1, 28, 28)")
    return countable(name, tuple(size(name, item) for item in values))


def countable(name: str, value: tuple[int, ...]) -> tuple[int, ...]:
    """``value`` if an array of this shape could fit in the memory of a machine."""
    if prod(value) > MOST_NUMBERS:
        raise ArgumentError(f"{name} is {value}, expected a shape of at most {MOST_NUMBERS:,} numbers")
    return value


def function(name: str, value: Any) -> Callable[..., Any]:
    """``value`` if it can be called."""
    if not callable(value):
        raise ArgumentError(f"{name} is {shown(value)}, expected a function")
    return value


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise ArgumentError(f"{name} is {shown(value)}, expected {expected}{did_you_mean(value, choices)}")
    return value


def instance(name: str, value: Any, kind: type[T], example: str) -> T:
    """``value`` if it is an instance of ``kind``."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise ArgumentError(f"{name} is {shown(value)}, expected {article} {kind.__name__} such as {example}")
    return value


def shown(value: Any) -> str:
    """``value`` as text for a message: on one line, and truncated if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers with thousands of digits
        text = f"{type(value).__name__} of {value.bit_length()} bits" if isinstance(value, int) else "..."
    return short(" ".join(text.split()), 60)


def row(value: Any) -> tuple[Any, ...] | None:
    """The items of a list, a tuple or an array; None for anything else."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else None


def weights_row(name: str, values: Any, one: bool = False) -> Any:
    """A tuple of numbers of at least 0, not all 0; None, or with ``one`` a single number, as it is."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if values is None or (one and not isinstance(values, Sequence)):
        return values if values is None else number(name, values)
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ArgumentError(f"{name} is {shown(values)}, expected a list with a number for each class")
    numbers = tuple(number(f"{name}[{position}]", value) for position, value in enumerate(values))
    if not any(numbers):
        raise ArgumentError(f"{name} is {shown(values)}, expected numbers that are not all 0")
    return numbers


def optional_label(name: str, value: Any) -> int | None:
    """``value`` as an integer, or None."""
    try:
        return None if value is None else operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} is {shown(value)}, expected a label such as 0 or None") from None
