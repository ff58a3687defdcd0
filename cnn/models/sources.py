"""Finds the architecture of a user's own network.

It is made by a Python file, or described by a TOML file, a file of weights or a run.
"""

import inspect
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.memory import Shape
from cnn.layers.sequential import Sequential
from cnn.network import Network
from cnn.saving import toml
from cnn.saving.weights import MODEL_FILE, SavedNetwork
from cnn.support.errors import ArgumentError, CheckpointError
from cnn.support.own_code import evaluated, failed, is_code
from cnn.support.reading import read_text

EXAMPLE = "mynet.py:make"
TOML, WEIGHTS = ".toml", ".safetensors"
RUN_FILE = "config.json"  # a folder with this file is a run

Maker = Callable[[int, Shape | None], Network]


@dataclass(frozen=True)
class Source:
    """A way to make a network with a certain architecture."""

    make: Maker  # (classes, input_shape) -> the network, not yet built
    input_shape: Shape | None = None  # of a network that was built before
    dtype: str | None = None  # of such a network


def is_own(model: str) -> bool:
    """Whether a model is a file of the user or the folder of a run, and not a name."""
    return is_code(model) or model.endswith((TOML, WEIGHTS)) or is_run(model)


def is_run(model: str) -> bool:
    """Whether a model is the folder of a run."""
    return os.path.isfile(os.path.join(model, RUN_FILE))  # also False for text that cannot be a path


def has_weights(model: str) -> bool:
    """Whether a model is the network of a file of weights or of a run."""
    return model.endswith(WEIGHTS) or is_run(model)


def title(model: str) -> str:
    """A short name for a model, for folders and headlines."""
    path = model.rpartition(":")[0] if is_code(model) else model
    return Path(path).stem if is_own(model) else model


def find(model: str) -> Source:
    """The source that ``model`` names: "mynet.py:make", "net.toml", "net.safetensors" or a run's folder.

    ``make`` in "mynet.py:make" is a network, or a function that returns one. A function is called with
    ``classes`` and ``input_shape`` (C, H, W) if it has parameters of these names.
    """
    if is_code(model):
        return Source(lambda classes, input_shape: _made(model, classes, input_shape))
    if model.endswith(TOML):
        network = toml.read(Path(model))
        return Source(lambda classes, input_shape: network.fresh())
    if not is_run(model):
        return _of_saved(SavedNetwork.read(model))
    saved = SavedNetwork.read(Path(model) / MODEL_FILE)
    return of_run(saved, _model_of(Path(model) / RUN_FILE))


def of_run(saved: SavedNetwork, model: str) -> Source:
    """The network that a run's weights describe; if they do not, the one of the Python file ``model``."""
    try:
        return _of_saved(saved)
    except CheckpointError:
        if not is_code(model):
            raise
        return Source(find(model).make, saved.input_shape, saved.dtype)


def _of_saved(saved: SavedNetwork) -> Source:
    network = saved.architecture()
    return Source(lambda classes, input_shape: network.fresh(), saved.input_shape, saved.dtype)


def _model_of(config: Path) -> str:
    """The model in the config.json of a run; empty if the file is damaged, which the run's reader reports."""
    try:
        return str(json.loads(read_text(config))["model"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def _made(model: str, classes: int, input_shape: Shape | None) -> Network:
    """The network of "mynet.py:make"."""
    made: Any = evaluated(model, "--model", EXAMPLE)
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
