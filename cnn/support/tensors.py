"""Arrays by name with a description, as the bytes of a safetensors file."""

from collections.abc import Mapping
from typing import Any

from cnn.support.errors import CheckpointError
from cnn.support.files import to_json
from cnn.support.libraries import require

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
