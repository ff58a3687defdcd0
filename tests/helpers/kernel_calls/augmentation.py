"""Augmentation: draws, the pixels of images for which something was drawn, and mixed targets."""

from functools import partial

import numpy as np

from backends.kernels.augmentation import (
    BLEND,
    BOX_LEFT,
    BOX_SIZE,
    BOX_TOP,
    BOXES,
    COLOUR,
    COLUMNS,
    GEOMETRY,
    UNIT,
    Step,
    rows_drawn,
)
from helpers.kernel_calls.drawn import RANDOM, F, N, labels, numbers

H, W = 5, 7
ROWS = 9  # of each kind in the table; they follow each other
PROGRAM = (
    Step(GEOMETRY, 0, ROWS, 2 * ROWS * UNIT),  # half of the samples stay as they are
    Step(GEOMETRY, 1, 2, 2 * UNIT, alternates=True),
    *(
        Step(kind, kind * ROWS, ROWS, ROWS * UNIT, box=box)
        for box in (0, 1, 2)
        for kind in (GEOMETRY, COLOUR, BLEND, BOX_SIZE, BOX_TOP, BOX_LEFT)
    ),
)


def in_units(low, high, *shape):
    """Random multiples of 1 / UNIT."""
    return RANDOM.integers(low * UNIT, high * UNIT, shape) / UNIT


def whole(low, high, *shape):
    return RANDOM.integers(low, high, shape).astype(float)


def table():
    rows = in_units(-1, 1, 6 * ROWS, COLUMNS)
    rows[:ROWS, [2, 5]] *= H  # how far images move
    rows[BOX_SIZE * ROWS : (BOX_SIZE + 1) * ROWS] = whole(0, H, ROWS, COLUMNS)
    rows[BOX_TOP * ROWS :, 0] = whole(-2, W, 2 * ROWS)
    return rows


def draws(k):
    keys = np.array([(1 << 32) - 3, 12345, 7])
    samples = RANDOM.integers(0, 1 << 31, (k, N))
    return "draw", samples, keys, PROGRAM, table(), (H, W), numbers(k, rows_drawn(PROGRAM), N)


def drawn(smooth, boxes, *k):
    """What could have been drawn, so that pixels come from everywhere in the images and around them."""
    rows = np.zeros((*k, BOXES + 4 * boxes, N))
    rows[..., :6, :] = whole(-1, 2, *k, 6, N)
    rows[..., [2, 5], :] = whole(-2 * H, 2 * W, *k, 2, N)
    if smooth:
        rows[..., :6, :] += in_units(-1, 1, *k, 6, N)
    rows[..., 6:BOXES, :] = in_units(0, 1, *k, BOXES - 6, N)
    rows[..., BOXES:, :] = whole(-2, 4, *k, 4 * boxes, N)
    return rows


def augmented(images, reflect, smooth, boxes=1, mixed=False):
    count, C, *size = images.shape
    if mixed:
        given = "augment_pairs", images, labels((2, N), count), drawn(smooth, boxes, 2)
    else:
        given = "augment_batch", images, labels(N, count), drawn(smooth, boxes)
    return *given, reflect, smooth, numbers(C), numbers(C), numbers(C, *size, N)


def scans(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


CALLS = {
    "draw": lambda: draws(1),
    "draw for images and their partners": lambda: draws(2),
    **{
        f"{'augment_pairs' if mixed else 'augment_batch'} of {images.__name__}, {place}, {pixels}": partial(
            lambda images, *how: augmented(images(6, 2, H, W), *how),
            images, place == "reflected", pixels == "interpolated", 3, mixed,
        )
        for mixed in (False, True)
        for images in (scans, numbers)
        for place in ("black around", "reflected")
        for pixels in ("whole", "interpolated")
    },
    "augment_batch of lines": lambda: augmented(numbers(6, 1, 1, W), True, True),
    "augment_batch of columns": lambda: augmented(scans(6, 1, 23, 1), True, False),
    "mix_targets of labels": lambda: (
        "mix_targets", labels(), labels(), drawn(False, 1), numbers(F, N),
    ),
    "mix_targets of numbers": lambda: (
        "mix_targets", numbers(F, N), numbers(F, N), drawn(False, 1), numbers(F, N),
    ),
}  # fmt: skip
