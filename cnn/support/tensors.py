"""Arrays by name with a description, as the bytes of a safetensors file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn.support.arguments import shown
from cnn.support.errors import CheckpointError
from cnn.support.files import to_json
from cnn.support.libraries import require
from cnn.support.text import some_of

METADATA = "xpcnn"  # the one entry of the file's metadata: several would have no fixed order
TO_SAVE = "to save weights"


def serialized(arrays: dict[str, Any], description: dict[str, Any]) -> bytes:
    """The contents of a safetensors file; equal ones for equal arguments."""
    return require("safetensors.numpy", TO_SAVE).save(arrays, {METADATA: to_json(description)})


def require_shapes(owner: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless two sets of arrays have the same names and shapes."""
    for name in [*expected, *found]:
        if name not in found:
            raise CheckpointError(f"{owner} lacks {name}, expected an array of shape {expected[name].shape}")
        if name not in expected:
            raise CheckpointError(f"{owner} has {name}, which this training run does not have")
        if found[name].shape != expected[name].shape:
            raise CheckpointError(
                f"{owner} has {name} with shape {found[name].shape}, expected {expected[name].shape}"
            )


def require_weights(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless ``found`` are real arrays with the names and shapes of a network's."""
    if not isinstance(found, Mapping):
        raise CheckpointError(f"the weights are {shown(found)}, expected arrays by name")
    arrays = {name: as_array(name, value) for name, value in found.items()}
    for name, place in expected.items():
        if name not in arrays and is_optional(name):
            continue
        if name not in arrays:
            raise CheckpointError(
                f"the weights lack {name}, which this network has with shape {place.shape}; "
                f"they have {some_of(arrays) or 'no names'}"
            )
        if arrays[name].shape != place.shape:
            turned = place.ndim == 2 and arrays[name].shape == place.shape[::-1]
            hint = ": it is transposed, as TensorFlow and Keras keep it" if turned else ""
            raise CheckpointError(
                f"the weights have {name} with shape {arrays[name].shape}, "
                f"this network has it with shape {place.shape}{hint}"
            )
        if arrays[name].dtype.kind not in "fiu":
            raise CheckpointError(f"the weights have {name} as {arrays[name].dtype}, expected real numbers")
    for name in arrays:
        if name not in expected and not is_optional(name):
            raise CheckpointError(f"the weights have {name}, which this network does not have")


def is_optional(name: str) -> bool:
    """Whether weights from elsewhere may lack an array of this name, or contain it without need."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def as_array(name: str, value: Any) -> Any:
    """A weight as an array, or CheckpointError."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the weights have {name} as {shown(value)}, expected an array") from error
