"""Images whose numbers lie in a range that trains badly, or in another one than those trained on."""

from typing import Any

import numpy as np

_LOOKED_AT = 1 << 22  # numbers, of the first images
_FEW_LEVELS = 16  # as in masks of 0 and 1, or digits of 8x8 pixels
_ROUNDING = 0.01  # beyond -1..1, as after a picture was made smaller
_WIDER = 4  # so many times is another range
_NEGATIVE = -0.1  # so low is no rounding


def scale_note(images: Any, name: str, trained_on: Any = None) -> str | None:
    """What to know about the range of the ``name`` images; None if there is nothing.

    ``trained_on`` are the images that the network learns from, if they are others.
    """
    low, high = _range(images)
    if trained_on is not None:
        first, last = _range(trained_on)
        if not _differ((low, high), (first, last)):
            return None  # what is to be said of the range was said of the training images
        return (
            f"the {name} images go {_shown(images, low, high)}, but the training images go "
            f"{_shown(trained_on, first, last)}: scale both alike"
        )
    if images.dtype == np.uint8:
        highest = _some(images).max()
        if not 1 <= highest <= _FEW_LEVELS:
            return None
        return (
            f"the {name} images are bytes from 0 to {highest}, which are divided by 255: scale them to 0..255"
        )
    if low >= -1 - _ROUNDING and high <= 1 + _ROUNDING:
        return None
    taken = f"the {name} images are floats from {low:.3g} to {high:.3g}, taken as they are"
    return taken if _is_standardized(images) else f"{taken}: scaled to 0..1 they train better"


def _differ(one: tuple[float, float], other: tuple[float, float]) -> bool:
    narrow, wide = sorted((high - low for low, high in (one, other)))
    return 0 < _WIDER * narrow < wide or (one[0] < _NEGATIVE) != (other[0] < _NEGATIVE)


def _some(images: Any) -> Any:
    return images[: max(1, _LOOKED_AT // images[0].size)]


def _range(images: Any) -> tuple[float, float]:
    """The lowest and the highest number that the network is given, for bytes those that they may have."""
    some = _some(images)
    return (0.0, 1.0) if images.dtype == np.uint8 else (float(some.min()), float(some.max()))


def _shown(images: Any, low: float, high: float) -> str:
    return f"from {low:.3g} to {high:.3g}" + (" (bytes, divided by 255)" if images.dtype == np.uint8 else "")


def _is_standardized(images: Any) -> bool:
    """Whether the images have about mean 0 and standard deviation 1, which trains well too."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = _some(images).mean(dtype=np.float64), _some(images).std(dtype=np.float64)
    return bool(abs(mean) < 0.5 and 0.5 < deviation < 2)
