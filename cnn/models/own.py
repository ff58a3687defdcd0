"""A user's own networks, made by a Python file or described by a file of weights."""

import inspect
from pathlib import Path

from cnn.layers.sequential import Sequential
from cnn.network import Network
from cnn.saving.weights import SavedNetwork
from cnn.support.errors import ArgumentError
from cnn.support.own_code import evaluated, failed, is_code

EXAMPLE = "mynet.py:make"
WEIGHTS = ".safetensors"


def is_own(model: str) -> bool:
    """Whether a model is a file of the user and not a name."""
    return is_code(model) or model.endswith(WEIGHTS)


def title(model: str) -> str:
    """A short name for a model, for folders and headlines."""
    return Path(model.rpartition(":")[0] or model).stem if is_own(model) else model


def make(model: str, classes: int, input_shape: tuple[int, ...] | None) -> Network:
    """The network of "mynet.py:make" or "net.safetensors", not yet built.

    ``make`` is a network, or a function that returns one. A function is called with ``classes`` and
    ``input_shape`` (C, H, W) if it has parameters of these names.
    """
    if model.endswith(WEIGHTS):
        return SavedNetwork.read(model).architecture()
    made = evaluated(model, "--model", EXAMPLE)
    if callable(made) and not isinstance(made, Sequential):
        known = {"classes": classes, "input_shape": input_shape}
        given = {name: known[name] for name in inspect.signature(made).parameters if name in known}
        try:
            made = made(**given)
        except Exception as error:
            raise failed(error, model, "--model") from error
    if not isinstance(made, Sequential):
        raise ArgumentError(
            f"--model {model!r} is {type(made).__name__}, expected a network such as cnn.Sequential(...), or "
            "a function that returns one"
        )
    return made.fresh() if isinstance(made, Network) else Network(*made.layers)
