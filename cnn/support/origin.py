"""Tells objects of this library from objects of a user's derived class."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from backends import graph

PACKAGE = __name__.partition(".")[0]


def is_own(value: Any) -> bool:
    """Whether all methods of ``value`` belong to this library; a user's class may add a constructor."""
    return all(
        (kind.__module__ or "").partition(".")[0] in (PACKAGE, "builtins", "abc") or not _methods(kind)
        for kind in type(value).__mro__
    )


def is_own_function(function: Callable[..., Any]) -> bool:
    """Whether a function or method was written in this library, and not put into its place by a user."""
    return (function.__module__ or "").partition(".")[0] == PACKAGE


def _methods(kind: type) -> list[str]:
    """The methods that a class defines, except its constructor and other special methods."""
    kinds = FunctionType | property | classmethod | staticmethod
    own = [name for name, value in vars(kind).items() if isinstance(value, kinds)]
    return [name for name in own if not (name.startswith("__") and name.endswith("__"))]


def call(method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a method in a training step, so that a repeated step is right for a user's own class too.

    The library's own methods make kernel calls, which are recorded. Others are called again in each step.
    """
    if is_own(method.__self__) and is_own_function(method):  # type: ignore[attr-defined]
        return method(*arguments, **named)
    return graph.call(method, *arguments, **named)
