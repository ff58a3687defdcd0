"""The preprocessing of images, which is part of a network: normalization, and how pictures are fitted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cnn.data.dataset import Dataset
from cnn.data.fitting import require_fit
from cnn.data.samples import measured
from cnn.support.arguments import number, shown
from cnn.support.errors import ArgumentError

_AT_ONCE = 1 << 18  # numbers that are read at a time, so that a mapped file is never copied as a whole
_AXES = (0, 2, 3)  # all but that of the channels
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
    n = images.size // images.shape[1]
    mean, std = [], []
    totals, squares = measured(images, _sums_of_bytes)
    for total, square in zip(totals.tolist(), squares.tolist(), strict=True):
        mean.append(total / (n * BYTE))
        std.append(((n * square - total * total) / (n * BYTE) ** 2) ** 0.5)
    return mean, std


def _sums_of_bytes(images: Any) -> list[Any]:
    """The sums of the bytes of each channel, and of their squares: (C,) each."""
    total = square = 0
    for piece in _pieces(images):
        numbers = piece.astype(np.int32)
        total = total + numbers.sum(axis=_AXES, dtype=np.int64)
        square = square + (numbers * numbers).sum(axis=_AXES, dtype=np.int64)
    return [total, square]


def _moments_of_floats(images: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in float64."""
    mean, square, varies = measured(images, _means_of_floats)
    return mean.tolist(), np.where(varies, np.sqrt(square), 0).tolist()  # the mean may be rounded


def _means_of_floats(images: Any) -> list[Any]:
    """The mean of each channel, the mean square of the differences from it, and whether there are any."""
    n = images.size // images.shape[1]
    mean = sum(piece.sum(axis=_AXES, dtype=np.float64) for piece in _pieces(images)) / n
    across = mean.reshape(-1, 1, 1)
    square = sum(((piece - across) ** 2).sum(axis=_AXES) for piece in _pieces(images)) / n
    first = images[0, :, :1, :1]
    varies = sum((piece != first).any(axis=_AXES) for piece in _pieces(images))
    return [mean, square, varies]
