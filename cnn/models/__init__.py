"""Networks ready to build, by name."""

from collections.abc import Callable

from backends.text import did_you_mean
from cnn.models.lenet5 import lenet5
from cnn.models.notebook import notebook
from cnn.network import Network
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError

__all__ = ["MODELS", "get", "lenet5", "notebook"]

MODELS: dict[str, Callable[[int], Network]] = {"lenet5": lenet5, "notebook": notebook}


def get(name: str, classes: int) -> Network:
    """The model called ``name``, for so many classes; not yet built."""
    if not isinstance(name, str) or name not in MODELS:
        expected = f"expected {' or '.join(MODELS)}{did_you_mean(name, MODELS)}"
        raise ArgumentError(f"unknown model {shown(name)}: {expected}")
    return MODELS[name](classes)
