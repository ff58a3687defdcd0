"""Pictures that look a little like photographs: three surfaces in any light, colours, scale and position."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("Kiesel", "Mauer", "Rinde (grün)")  # round stones, bricks, bark

Array = np.ndarray


def _smooth(random: np.random.Generator, shape: tuple[int, int], cells: int) -> Array:
    """Noise from -1 to 1 without edges."""
    noise = Image.fromarray(random.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(noise.resize(shape[::-1], Image.Resampling.BICUBIC))


def _stones(random: np.random.Generator, x: Array, y: Array) -> Array:
    """Round stones of several sizes on darker ground."""
    height = np.zeros_like(x)
    for _ in range(random.integers(14, 26)):
        centre, radius = random.uniform(-0.6, 0.6, 2), random.uniform(0.05, 0.12)
        distance = np.hypot(x - centre[0], y - centre[1]) / radius
        height = np.where(distance < 1, 0.6 + 0.4 * (1 - distance), height)
    return height


def _bricks(random: np.random.Generator, x: Array, y: Array) -> Array:
    """Rows of bricks with joints between them."""
    rows = random.uniform(5, 9)
    row = np.floor(y * rows)
    along = x * rows / 2 + row / 2 + random.uniform(0, 1)
    joint = np.minimum(np.mod(along, 1) * 2, np.mod(y * rows, 1))
    return np.where(joint < 0.18, 0.0, 0.8 + 0.2 * np.sin(9 * np.floor(along) + 5 * row))


def _bark(random: np.random.Generator, x: Array, y: Array) -> Array:
    """Long furrows, which wind and end."""
    furrows = random.uniform(5, 10)
    return 0.5 + 0.5 * np.sin(2 * np.pi * furrows * (x + 0.05 * np.sin(7 * y + random.uniform(0, 6))))


def photograph(kind: int, random: np.random.Generator, shape: tuple[int, int]) -> Image.Image:
    """A picture of class ``kind`` of this height and width."""
    H, W = shape
    y, x = np.mgrid[:H, :W] / max(H, W) - 0.5
    turn = random.uniform(-0.35, 0.35)
    warp = 0.02 * _smooth(random, shape, 5)
    seen = np.cos(turn) * x + np.sin(turn) * y + warp, np.cos(turn) * y - np.sin(turn) * x + warp
    surface = (_stones, _bricks, _bark)[kind](random, *seen)
    low, high = np.sort(random.uniform(40, 220, 2))
    low, high = (low, high) if high - low > 60 else (low - 30, high + 30)
    tint = random.normal(0, 18, (2, 3))
    colour = low + tint[0] + surface[..., None] * (high - low + tint[1])
    towards = random.uniform(0, 2 * np.pi)
    light = random.uniform(0.7, 1.2) + random.uniform(0, 0.8) * (np.cos(towards) * x + np.sin(towards) * y)
    light = light * (1 + 0.15 * _smooth(random, shape, 4))
    grain = random.normal(0, random.uniform(3, 10), (H, W, 1))
    return Image.fromarray((colour * light[..., None] + grain).clip(0, 255).astype(np.uint8))


def write_photographs(folder: Path, per_class: int, seed: int) -> None:
    """Folders of classes with pictures as cameras, phones and web pages leave them, and with stray files."""
    random = np.random.default_rng(seed)
    for kind, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            H, W = random.integers(70, 180, 2)
            picture, stem = photograph(kind, random, (H, W)), folder / name / f"Bild {number:03}"
            match number % 5:
                case 0 | 1:
                    orientation = int(random.integers(1, 9))
                    _write_turned(picture, stem.with_suffix(".jpg"), orientation)
                case 2:
                    opaque = np.tile(np.where(np.arange(W) < W // 9, 0, 255), (H, 1)).astype(np.uint8)
                    picture.putalpha(Image.fromarray(opaque))
                    picture.save(stem.with_suffix(".png"))
                case 3:
                    picture.save(stem.with_suffix(".webp"), quality=85)
                case 4:
                    picture.save(stem.with_suffix(".BMP"))
        for stray in (".DS_Store", "Thumbs.db", "notes.txt"):
            (folder / name / stray).write_bytes(b"stray")
    (folder / "desktop.ini").write_bytes(b"stray")


# how a picture is stored for each EXIF orientation, so that it looks as it is
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _write_turned(picture: Image.Image, path: Path, orientation: int) -> None:
    """Write a picture as a camera does that was held in another way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = STORED[orientation]
    stored = picture if how is None else picture.transpose(how)
    stored.save(path, quality=88, exif=exif)
