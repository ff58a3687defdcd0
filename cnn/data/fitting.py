"""Fits pictures of any size to the images of a network."""

from typing import TYPE_CHECKING

import numpy as np

from cnn.data.readers.photographs import laid_on
from cnn.support.errors import ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Array = np.ndarray


def as_image(picture: "Picture", shape: tuple[int, ...]) -> Array:
    """``picture`` as a uint8 image of ``shape`` (C, H, W): grey or RGB, with transparency as white.

    The whole picture is scaled to H x W without keeping its aspect ratio, because the network has never
    seen borders. Raises ShapeError unless C is 1 or 3.
    """
    from PIL import Image

    C, H, W = shape
    if C not in (1, 3):
        raise ShapeError(f"a picture has 1 or 3 channels, the network was built for {C} in {shape}")
    opaque = laid_on(picture, 255).convert("L" if C == 1 else "RGB")
    pixels = np.asarray(opaque.resize((W, H), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(H, W, C), -1, 0))
