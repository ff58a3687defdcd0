"""Histograms of the values of a layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 40


@dataclass(frozen=True)
class Histogram:
    """The finite nonzero values in equal bins from ``low`` to ``high``, and the share of zeros.

    Zeros are counted separately, because after a ReLU there are so many that they would hide the rest.
    """

    layer: str  # its label: "3 Conv2D"
    counts: Any  # (bins,), int64
    low: float
    high: float
    zeros: float  # share of all values

    @classmethod
    def of(cls, layer: str, numbers: Any) -> "Histogram":
        """The histogram of a host array."""
        rest = numbers[np.isfinite(numbers) & (numbers != 0)].astype(np.float64)
        low, high = (float(rest.min()), float(rest.max())) if rest.size else (0.0, 0.0)
        middle, least = (low + high) / 2, max(abs(low), abs(high), 1e-30) * 1e-6
        if high - low < least:  # the bins need some width
            low, high = middle - least, middle + least
        counts = np.histogram(rest, BINS, (low, high))[0]
        return cls(layer, counts, low, high, float(np.mean(numbers == 0)))

    @property
    def edges(self) -> Any:
        """The edges of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)
