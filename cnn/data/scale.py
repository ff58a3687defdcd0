"""Notes on images with a range of values that trains badly, or that differs from the training images."""

from typing import Any

import numpy as np

from cnn.data.samples import measured

_LOOKED_AT = 1 << 22  # values, of the first images
_FEW_LEVELS = 16  # as in masks of 0 and 1, or digits of 8x8 pixels
_ROUNDING = 0.01  # beyond -1..1, as after resizing a picture
_WIDER = 4  # times as wide is a different range
_NEGATIVE = -0.1  # lower than rounding explains


def scale_note(images: Any, name: str, trained_on: Any = None) -> str | None:
    """A note on the range of the ``name`` images, or None.

    ``trained_on`` are the training images, if they are different ones.
    """
    low, high = _range(images)
    if trained_on is not None:
        first, last = _range(trained_on)
        if not _differ((low, high), (first, last)):
            return None  # the note on the training images has covered this
        return (
            f"the {name} images range {_shown(images, low, high)}, but the training images range "
            f"{_shown(trained_on, first, last)}: scale both the same way"
        )
    if images.dtype == np.uint8:
        (highest,) = measured(_some(images), lambda some: [some.max()])
        if not 1 <= highest <= _FEW_LEVELS:
            return None
        return (
            f"the {name} images are bytes up to {highest}, but bytes are divided by 255: scale them to 0..255"
        )
    if low >= -1 - _ROUNDING and high <= 1 + _ROUNDING:
        return None
    taken = f"the {name} images are floats from {low:.3g} to {high:.3g}, used unchanged"
    if _is_standardized(images):
        return taken
    are_bytes = low >= 0 and _FEW_LEVELS < high <= 255
    return f"{taken}: they train better if {'divided by 255' if are_bytes else 'scaled to 0..1'}"


def _differ(one: tuple[float, float], other: tuple[float, float]) -> bool:
    narrow, wide = sorted((high - low for low, high in (one, other)))
    return 0 < _WIDER * narrow < wide or (one[0] < _NEGATIVE) != (other[0] < _NEGATIVE)


def _some(images: Any) -> Any:
    return images[: max(1, _LOOKED_AT // images[0].size)]


def _range(images: Any) -> tuple[float, float]:
    """The lowest and highest value that the network gets; for bytes, the possible values."""
    if images.dtype == np.uint8:
        return 0.0, 1.0
    low, high = measured(_some(images), lambda some: [some.min(), some.max()])
    return float(low), float(high)


def _shown(images: Any, low: float, high: float) -> str:
    return f"from {low:.3g} to {high:.3g}" + (" (bytes, divided by 255)" if images.dtype == np.uint8 else "")


def _is_standardized(images: Any) -> bool:
    """Whether the images have a mean of about 0 and a standard deviation of about 1, which trains well."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = measured(
            _some(images), lambda some: [some.mean(dtype=np.float64), some.std(dtype=np.float64)]
        )
    return bool(abs(mean) < 0.5 and 0.5 < deviation < 2)
