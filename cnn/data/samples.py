"""The arrays of a data set, without what they mean. Each is on the host or on a device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import backends
from backends import Backend
from backends.interoperability import on_host, to_host


@dataclass(frozen=True)
class Samples:
    """Arrays with an entry for each sample, on the host or on a device."""

    images: Any
    targets: Any  # labels (N,), numbers (N, ...), or None
    weights: Any = None  # (N,) or None

    @property
    def has_labels(self) -> bool:
        """Whether the targets are labels."""
        return self.targets is not None and self.targets.ndim == 1

    def map(self, function: Callable[[Any], Any]) -> "Samples":
        """The results of ``function`` for the arrays; targets that are the images stay the images."""
        images = function(self.images)
        targets = None if self.targets is None else images if self.is_own_target else function(self.targets)
        return Samples(images, targets, None if self.weights is None else function(self.weights))

    @property
    def is_own_target(self) -> bool:
        """Whether the targets are the images themselves, as for an autoencoder."""
        return self.targets is self.images

    @property
    def arrays(self) -> list[Any]:
        """The arrays that there are, each once."""
        arrays = [self.images, None if self.is_own_target else self.targets, self.weights]
        return [array for array in arrays if array is not None]


@dataclass(frozen=True)
class HostCopy:
    """A host copy of an array, and its device. Arrays on a device are pickled as this."""

    backend: Backend
    array: Any

    @classmethod
    def of(cls, array: Any) -> "HostCopy | None":
        """The copy of an array on a device; None for an array on the host."""
        return None if on_host(array) else cls(backends.of(array), to_host(array))

    def map(self) -> Any:
        """The array, on the device of the same name."""
        return self.backend.asarray(self.array)


def picked(array: Any, positions: Any) -> Any:
    """The entries of an array at these positions, on its device."""
    if on_host(array):
        return array[positions]
    backend = backends.of(array)
    with backend.active():
        return backend.xp.take(array, backend.asarray(positions), axis=0)


def measured(array: Any, measure: Callable[[Any], list[Any]]) -> list[Any]:
    """What ``measure`` computes of an array, on its device; each is brought to the host."""
    if on_host(array):
        return measure(array)
    backend = backends.of(array)
    with backend.active():
        return [backend.to_host(each) for each in measure(array)]
