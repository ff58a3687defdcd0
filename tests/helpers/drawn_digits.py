"""Pictures of a digit, as they are drawn, scanned and photographed."""

import numpy as np
from PIL import Image, ImageDraw, ImageOps

SHAPE = (1, 28, 28)
SEVEN = [(0.2, 0.1), (0.8, 0.1), (0.4, 0.9)]


def drawn(size=280, width=0.08, ink=0, paper=255, mode="L", box=(0, 0, 1, 1), points=SEVEN):
    """A digit in a part of a picture; ``width`` is of the part's shorter side."""
    W, H = (size, size) if isinstance(size, int) else size
    picture = Image.new(mode, (W, H), paper)
    left, top, right, bottom = box
    part = (right - left) * W, (bottom - top) * H
    line = [(left * W + x * part[0], top * H + y * part[1]) for x, y in points]
    ImageDraw.Draw(picture).line(line, fill=ink, width=max(1, round(width * min(part))), joint="curve")
    return picture


def on_transparent(colour):
    """The digit in ``colour`` on nothing."""
    picture = Image.new("RGBA", (280, 280), (*colour, 255))
    picture.putalpha(ImageOps.invert(drawn()))
    return picture


def lit(picture, light, noise=0.0):
    """``picture`` under ``light(x, y)``, both from -1 to 1, with a camera's noise."""
    H, W = picture.height, picture.width
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    noisy = np.asarray(picture) * light(x, y) + np.random.default_rng(0).normal(0, noise, (H, W))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def alike(one, other):
    """The correlation of two images."""
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]
