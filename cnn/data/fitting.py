"""Fits a picture of any size and colour to the images of a network."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.text import did_you_mean
from cnn.data.digits import as_digit
from cnn.data.readers.photographs import laid_on
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError, DataError, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Array = np.ndarray
Size = tuple[int, int]  # width, height

GROUND = 255  # white: the background of transparent pictures, and the bars of a letterbox


def require_fit(fit: str) -> None:
    """Raise ArgumentError unless ``fit`` is the name of a way to fit pictures, a key of FITS."""
    if fit not in FITS:
        raise ArgumentError(f"fit is {shown(fit)}, expected {', '.join(FITS)}{did_you_mean(fit, FITS)}")


def fitted(picture: "Picture", shape: tuple[int, ...], fit: str) -> Array:
    """``picture`` as a uint8 image of ``shape`` (C, H, W); ``fit`` is a key of FITS.

    Raises ShapeError unless C is 1 (grey) or 3 (red, green, blue), and DataError if ``fit`` is "digit" and no
    digit is found.
    """
    return FITS[fit](picture, shape)


def fitted_file(file: Path, picture: "Picture", shape: tuple[int, ...], fit: str) -> Array:
    """:func:`fitted` for the picture in ``file``, which a DataError names."""
    try:
        return fitted(picture, shape, fit)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None


def _opaque(resize: Callable[["Picture", Size], "Picture"]) -> Callable[["Picture", tuple[int, ...]], Array]:
    """Make a way to fit pictures from a function that resizes an opaque picture."""

    def fit(picture: "Picture", shape: tuple[int, ...]) -> Array:
        C, H, W = shape
        if C not in (1, 3):
            raise ShapeError(f"a picture has 1 or 3 channels, the network was built for {C} in {shape}")
        opaque = laid_on(picture, GROUND).convert("L" if C == 1 else "RGB")
        pixels = np.asarray(resize(opaque, (W, H))).reshape(H, W, C)
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))

    return fit


def _stretch(picture: "Picture", size: Size) -> "Picture":
    """The whole picture; its aspect ratio changes."""
    from PIL import Image

    return picture.resize(size, Image.Resampling.BICUBIC)


def _crop(picture: "Picture", size: Size) -> "Picture":
    """The largest part in the middle of the picture that has the aspect ratio of the image."""
    from PIL import ImageOps

    return ImageOps.fit(picture, size)


def _letterbox(picture: "Picture", size: Size) -> "Picture":
    """The whole picture with its aspect ratio kept, and bars at two of its sides."""
    from PIL import Image

    scale = min(size[0] / picture.width, size[1] / picture.height)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    image = Image.new(picture.mode, size, (GROUND,) * len(picture.getbands()))
    image.paste(_stretch(picture, (width, height)), ((size[0] - width) // 2, (size[1] - height) // 2))
    return image


FITS: Mapping[str, Callable[["Picture", tuple[int, ...]], Array]] = {
    "stretch": _opaque(_stretch),
    "crop": _opaque(_crop),
    "letterbox": _opaque(_letterbox),
    "digit": as_digit,
}
FIT_IN_WORDS = {
    "stretch": "stretched to this size",
    "crop": "cropped to the middle",
    "letterbox": "fitted with white bars",
    "digit": "cut out and centred as the digits of MNIST",
}
"""What each way makes of pictures."""
