"""The preprocessing of images, which is part of a network: normalization, and how pictures are fitted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnn.data.dataset import Dataset
from cnn.data.fitting import require_fit
from cnn.support.arguments import number, shown
from cnn.support.errors import ArgumentError

_AT_ONCE = 1 << 18  # numbers that are read at a time, so that a mapped file is never copied as a whole
BYTE = 255  # bytes are divided by this


@dataclass(frozen=True)
class Preprocessing:
    """Fits a picture, then subtracts the mean of each channel and divides by its standard deviation.

    Parameters
    ----------
    mean, std
        One number for each channel. Bytes are scaled to 0..1 before; other numbers are used unchanged.
    fit
        How a picture of another size or colour becomes an image, as in :class:`cnn.data.Pictures`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "stretch"

    def __post_init__(self) -> None:
        require_fit(self.fit)
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if len(self.mean) != len(self.std):
            raise ArgumentError(
                f"mean has {len(self.mean)} numbers and std has {len(self.std)}: expected one of each for "
                "each channel"
            )
        for value in self.std:
            if value <= 0:
                raise ArgumentError(f"std has {value:g}, expected numbers above 0")

    @classmethod
    def of(cls, data: Dataset) -> "Preprocessing":
        """The mean and the standard deviation of each channel of all images; exact for bytes.

        A channel in which all numbers are equal gets a standard deviation of 1.
        """
        moments = _moments_of_bytes if data.images.dtype == np.uint8 else _moments_of_floats
        mean, std = moments(data.images)
        return cls(tuple(mean), tuple(value or 1.0 for value in std), data.fit or cls.fit)

    @classmethod
    def none(cls, channels: int, fit: str = "stretch") -> "Preprocessing":
        """The preprocessing that only scales bytes to 0..1."""
        return cls((0.0,) * channels, (1.0,) * channels, fit)

    def require(self, input_shape: tuple[int, ...]) -> None:
        """Raise ArgumentError unless these are the numbers for inputs of this shape."""
        if len(input_shape) != 3 or len(self.mean) != input_shape[0]:
            raise ArgumentError(
                f"the preprocessing is for {len(self.mean)} channels, the network's input is {input_shape}: "
                "expected a mean and a std for each channel of a (C, H, W)"
            )

    @property
    def normalizes(self) -> bool:
        """Whether it changes numbers other than by scaling bytes to 0..1."""
        return any(self.mean) or any(value != 1 for value in self.std)

    def arrays(self, images_dtype: Any, dtype: str) -> tuple[Any, Any]:
        """(shift, scale) of each channel in ``dtype``: stored numbers become (number - shift) * scale."""
        unit = BYTE if images_dtype == np.uint8 else 1
        shift, scale = unit * np.array(self.mean), 1 / (unit * np.array(self.std))
        return shift.astype(dtype), scale.astype(dtype)

    @property
    def description(self) -> dict[str, Any]:
        """The numbers as plain data, from which ``Preprocessing(**description)`` makes the same."""
        return {"mean": list(self.mean), "std": list(self.std), "fit": self.fit}


def keep_fit(network: Any, fit: str | None) -> None:
    """Let ``network`` fit pictures like its training images, by ``fit``; None if that is unknown."""
    own = network.preprocessing or Preprocessing.none(network.input_shape[0])
    if fit not in (None, own.fit):
        network.preprocessing = replace(own, fit=fit)


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
        raise ArgumentError(f"{name} is {shown(values)}, expected a number for each channel, such as (0.5,)")
    return tuple(number(name, value, least=-np.inf) for value in values)


def _pieces(images: Any) -> Iterator[Any]:
    """A few images at a time, in order."""
    count = max(1, _AT_ONCE // images[0].size)
    for start in range(0, len(images), count):
        yield images[start : start + count]


def _moments_of_bytes(images: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in 0..1, from whole numbers without rounding."""
    channels = range(images.shape[1])
    counts = np.zeros((len(channels), BYTE + 1), dtype=np.int64)
    for piece in _pieces(images):
        for channel in channels:
            counts[channel] += np.bincount(piece[:, channel].ravel(), minlength=BYTE + 1)
    mean, std = [], []
    for histogram in counts.tolist():
        n = sum(histogram)
        total = sum(value * count for value, count in enumerate(histogram))
        squares = sum(value * value * count for value, count in enumerate(histogram))
        mean.append(total / (n * BYTE))
        std.append(((n * squares - total * total) / (n * BYTE) ** 2) ** 0.5)
    return mean, std


def _moments_of_floats(images: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in float64."""
    n, axes = images.size // images.shape[1], (0, 2, 3)
    mean = sum(piece.sum(axis=axes, dtype=np.float64) for piece in _pieces(images)) / n
    across = mean.reshape(-1, 1, 1)
    squares = sum(np.square(piece - across).sum(axis=axes) for piece in _pieces(images))
    first = images[0, :, :1, :1]
    varies = sum((piece != first).any(axis=axes) for piece in _pieces(images))
    return mean.tolist(), np.where(varies, np.sqrt(squares / n), 0).tolist()  # the mean may be rounded
