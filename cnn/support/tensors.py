"""Arrays by name with a description, as the bytes of a safetensors file."""

from typing import Any

from cnn.support.files import to_json
from cnn.support.libraries import require

METADATA = "xpcnn"  # the one entry of the file's metadata: several would have no fixed order
TO_SAVE = "to save weights"


def serialized(arrays: dict[str, Any], description: dict[str, Any]) -> bytes:
    """The contents of a safetensors file; equal ones for equal arguments."""
    return require("safetensors.numpy", TO_SAVE).save(arrays, {METADATA: to_json(description)})
