"""What the network code refuses, each in one sentence that says what to do."""

from backends import ArgumentError, DeviceLost, DeviceUnavailable, OutOfMemory
from backends.errors import Notice

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DataError",
    "DeviceLost",
    "DeviceUnavailable",
    "DisagreementError",
    "Notice",
    "OutOfMemory",
    "ShapeError",
    "TrainingError",
]


class ShapeError(ValueError):
    """Shapes that do not fit each other; the message names the layer, both shapes and what would fit."""


class DataError(ValueError):
    """A data set or file that cannot be used; the message names it, what is wrong and what was expected."""


class CheckpointError(ValueError):
    """A file of weights that is broken or belongs to another network."""


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says where it stopped and what usually mends it."""


class DisagreementError(RuntimeError):
    """Devices or kernels that do not compute the same; the message names the layer where they part."""
