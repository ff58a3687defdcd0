"""Libraries that only some commands need, imported when one of those runs."""

import sys
from importlib import import_module
from types import ModuleType

from cnn.errors import ArgumentError


def require(name: str, purpose: str, package: str | None = None) -> ModuleType:
    """The module ``name``; ArgumentError with what to install, where that is missing."""
    try:
        return import_module(name)
    except Exception as error:  # a broken installation fails in any way it likes
        raise ArgumentError(
            f"{package or name} is needed {purpose} and cannot be imported ({error}): "
            f"{sys.executable} -m pip install {package or name}"
        ) from error
