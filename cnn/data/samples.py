"""The arrays of a data set, without what they mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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
