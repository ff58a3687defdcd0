"""The exceptions of this library. Each message is one sentence that says what to do."""

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
    """Shapes do not match; the message names the layer, both shapes and the expected shape."""


class DataError(ValueError):
    """A data set or file cannot be used; the message names it, the problem and what was expected."""


class CheckpointError(ValueError):
    """A file of weights is damaged or belongs to another network."""


class TrainingError(RuntimeError):
    """A training run cannot continue; the message says where it stopped and what usually helps."""


class DisagreementError(RuntimeError):
    """Devices or kernels compute different results; the message names the first layer that differs."""
