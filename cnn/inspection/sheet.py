"""A sheet of augmented pictures: what a network sees of some images in its first epochs."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.interoperability import to_host
from cnn.data.augmentation import Augmentation
from cnn.data.dataset import Dataset
from cnn.data.feed import Feed
from cnn.data.samples import picked
from cnn.support.files import write_whole
from cnn.support.libraries import require

ROWS, COLUMNS = 8, 12  # images, and the versions of each: the image itself first
SIDE = 72  # pixels of a picture, at least
GAP = 4


def augmented(data: Dataset, augment: Sequence[Augmentation], seed: int = 0) -> Any:
    """(ROWS, COLUMNS, C, H, W): images as they are stored, then as they are in the first epochs."""
    device = backends.get("cpu")
    every = np.linspace(0, len(data) - 1, min(ROWS, len(data))).astype(int)
    some = to_host(picked(data.images, every)), np.zeros(len(every), np.int64)
    columns = []
    for number in range(COLUMNS):
        feed = Feed(
            device, "float32", *some, len(every), augment=augment if number else (), seed=seed, classes=1
        )
        feed.start(np.arange(len(every)), epoch=number - 1 if number else 0)
        ((x, _),) = feed
        columns.append(np.moveaxis(x, -1, 0).copy())
    return np.stack(columns, axis=1)


def write_sheet(data: Dataset, augment: Sequence[Augmentation], path: str | Path, seed: int = 0) -> None:
    """Write a sheet of augmented pictures as a PNG file."""
    Image = require("PIL.Image", "to draw pictures", "pillow")
    pictures = _as_bytes(augmented(data, augment, seed))
    rows, columns, C, H, W = pictures.shape
    times = -(-SIDE // max(H, W))
    pictures = pictures.repeat(times, axis=3).repeat(times, axis=4)
    height, width = H * times + GAP, W * times + GAP
    sheet = np.full((C, rows * height + GAP, columns * width + 2 * GAP), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = GAP + row * height, GAP + column * width + GAP * (column > 0)
            sheet[:, top : top + H * times, left : left + W * times] = pictures[row, column]
    buffer = BytesIO()
    Image.fromarray(sheet[0] if C == 1 else np.moveaxis(sheet, 0, -1)).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())


def _as_bytes(pictures: Any) -> Any:
    """Pictures in 1, 3 or 4 channels of bytes: the range of the images as they are stored, 0..1 for bytes."""
    low, high = min(0.0, pictures[:, 0].min()), max(1.0, pictures[:, 0].max())
    scaled = np.clip((pictures - low) / (high - low), 0, 1)
    if scaled.shape[2] not in (1, 3, 4):
        scaled = scaled.mean(axis=2, keepdims=True)
    return np.round(255 * scaled).astype(np.uint8)
