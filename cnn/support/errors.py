"""The exceptions of this library. Each message is one sentence that says what to do."""

from math import prod

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
    "out_of_memory",
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


def out_of_memory(error: OutOfMemory | MemoryError, advice: str | None = None) -> OutOfMemory:
    """``error`` as OutOfMemory, with another ``advice``; NumPy's has the shape and dtype of the array."""
    if isinstance(error, OutOfMemory):
        return OutOfMemory(error.device, error.requested, error.free, advice or error.advice)
    shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
    requested = None if shape is None or dtype is None else prod(shape) * int(dtype.itemsize)
    return OutOfMemory("cpu", requested, None, advice or "use smaller images, layers or batches")
