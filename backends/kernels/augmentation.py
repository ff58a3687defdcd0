"""Augmentation in plain ``xp``: what each sample gets is drawn from tables, and applied in the gather.

A *program* is a list of steps. Each step draws one row of a table for each sample, which then changes one
thing: where pixels come from (an affine map), their brightness, a box, or how much another sample counts.
All numbers in tables are multiples of 1 / UNIT, as are the coordinates that are made of them, so that the
arithmetic up to the pixels is exact: every device and every kernel set draws the same bits.
"""

from typing import Any, NamedTuple

from backends.kernels.hashing import scrambled, scrambled_number
from backends.memory import Array, temporaries

UNIT = 1 << 16
FINE = 1 << 8  # positions between two pixels at which values are interpolated

GEOMETRY, COLOUR, BLEND, BOX_SIZE, BOX_TOP, BOX_LEFT = range(6)
"""What the row of a step does:

- GEOMETRY ``(a, b, c, d, e, f)``: the pixel at (i, j) now comes from (a i + b j + c, d i + e j + f).
- COLOUR ``(gain, offset)``: pixels are now ``gain * pixel + offset``.
- BLEND ``(share,)``: the sample's share of the mixture with the other sample.
- BOX_SIZE ``(height, width)``: the size of a box.
- BOX_TOP, BOX_LEFT ``(start, part)``: the box begins at ``start - floor(part * size)``.
"""

COLUMNS = 6  # of a table

AFFINE, GAIN, OFFSET, SHARE, TARGET_SHARE, BOXES = 0, 6, 7, 8, 9, 10
"""The rows of what has been drawn; each box has four: top, left, height and width.

The first box is cut out of the other sample, and those after it are erased. TARGET_SHARE is the part of the
pixels that are the sample's own.
"""


class Step(NamedTuple):
    """One draw: a row of the table from ``first`` on.

    There are ``rows`` of them, and ``span`` is the number of rows to draw from, in 1/UNIT: rows that do not
    exist leave the sample as it is. A step that ``alternates`` has two rows, and takes turns with the epoch.
    """

    kind: int
    first: int
    rows: int
    span: int
    alternates: bool = False
    box: int = 0


Program = tuple[Step, ...]


def rows_drawn(program: Program) -> int:
    """How many numbers are drawn for each sample."""
    return BOXES + 4 * (1 + max((step.box for step in program), default=0))


class Draws:
    """Draws for some samples, on any device."""

    def __init__(self, xp: Any, samples: Array, keys: Array) -> None:
        self.xp, self._keys = xp, keys
        self._samples = samples.astype(xp.uint32)

    def row(self, number: int, step: Step, table: Array) -> tuple[Array, Array]:
        """The rows (COLUMNS, n) that step ``number`` draws, and whether they exist (n,)."""
        xp, keys = self.xp, self._keys
        key = keys[1:2] if step.alternates else keys[:1]
        bits = scrambled(xp, self._samples + key.astype(xp.uint32))
        bits = scrambled(xp, bits ^ xp.uint32(scrambled_number(number)))
        if step.alternates:
            index = ((bits >> xp.uint32(31)).astype(xp.int64) + keys[2:]) & 1
        else:
            index = (bits.astype(xp.int64) * step.span) >> 48
        found = xp.minimum(index, step.rows - 1) + step.first
        return xp.take(table, found, axis=0).T, index < step.rows


def rounded(xp: Any, values: Array) -> Array:
    """``values`` as multiples of 1 / UNIT."""
    return xp.floor(values * UNIT + 0.5) / UNIT


def compose(xp: Any, drawn: Array, row: Array, happens: Array) -> None:
    """Let the affine map of ``drawn`` follow that of ``row``."""
    for at in (AFFINE, AFFINE + 3):
        a, b, c = drawn[at].copy(), drawn[at + 1].copy(), drawn[at + 2].copy()
        for column in range(3):
            value = a * row[column] + b * row[column + 3]
            value = rounded(xp, value + c if column == 2 else value)
            xp.copyto(drawn[at + column], value, where=happens)


def change(xp: Any, drawn: Array, step: Step, row: Array, happens: Array) -> None:
    """Let one ``row`` of each sample change what has been ``drawn``."""
    top, left, height, width = range(BOXES + 4 * step.box, BOXES + 4 * step.box + 4)

    def put(place: int, value: Array) -> None:
        xp.copyto(drawn[place], value, where=happens)

    if step.kind == GEOMETRY:
        compose(xp, drawn, row, happens)
    elif step.kind == COLOUR:
        put(GAIN, rounded(xp, row[0] * drawn[GAIN]))
        put(OFFSET, rounded(xp, row[0] * drawn[OFFSET] + row[1]))
    elif step.kind == BLEND:
        put(SHARE, row[0])
    elif step.kind == BOX_SIZE:
        put(height, row[0])
        put(width, row[1])
    else:
        start, size = (top, height) if step.kind == BOX_TOP else (left, width)
        put(start, row[0] - xp.floor(row[1] * drawn[size]))


def share_targets(xp: Any, drawn: Array, size: tuple[int, int]) -> None:
    """TARGET_SHARE, from the sample's share and the part of its picture that is cut from the other."""
    area = 1.0
    for axis in (0, 1):
        start = drawn[BOXES + axis]
        end = xp.minimum(start + drawn[BOXES + 2 + axis], float(size[axis]))
        area = area * xp.maximum(end - xp.maximum(start, 0.0), 0.0)
    drawn[TARGET_SHARE] = drawn[SHARE] * (1 - area / (size[0] * size[1]))


class Pixels:
    """Where the pixels of augmented samples come from, on any device: images (M, C, H, W) -> (C, H, W, n)."""

    def __init__(self, device: Any, images: Array, out: Array, reflect: bool, smooth: bool) -> None:
        self.device, self.xp = device, device.xp
        self._images, self._out = images.reshape(-1), out
        self._reflect, self._smooth = reflect, smooth
        xp, shape = self.xp, out.shape[1:]
        taps = 4 if smooth else 1
        arrays = temporaries(
            device,
            *[(shape, xp.int64)] * (4 + taps),
            *[(shape, xp.bool_)] * (2 + taps),
            *[(shape, out.dtype)] * 5,
            (shape, images.dtype),
        )
        self._y, self._x, self._place, self._work, *arrays = arrays
        self._tap_places, arrays = arrays[:taps], arrays[taps:]
        self._tests, self._tap_inside, arrays = arrays[:2], arrays[2 : 2 + taps], arrays[2 + taps :]
        self._fractions, (self._upper, self._lower, self._value, self._stored) = arrays[:2], arrays[2:]

    def locate(self, drawn: Array, indices: Array) -> None:
        """Find the pixels of the first channel that each pixel is made of."""
        xp = self.xp
        C, H, W, _ = self._out.shape
        rows, columns = xp.arange(H)[:, None, None], xp.arange(W)[:, None]
        for place, at, fraction in ((self._y, 0, self._fractions[0]), (self._x, 3, self._fractions[1])):
            a, b, c = (xp.floor(drawn[AFFINE + at + k] * UNIT + 0.5).astype(xp.int64) for k in range(3))
            place[...] = rows * a + (c + UNIT // FINE // 2)
            self._work[...] = columns * b
            xp.add(place, self._work, out=place)
            xp.right_shift(place, 8, out=place)
            xp.bitwise_and(place, FINE - 1, out=self._work)
            xp.multiply(self._work, 1 / FINE, out=fraction)
            xp.right_shift(place, 8, out=place)
        offsets = ((0, 0), (0, 1), (1, 0), (1, 1)) if self._smooth else ((0, 0),)
        for tap, (down, right) in enumerate(offsets):
            place, inside = self._tap_places[tap], self._tap_inside[tap]
            self._border(self._y, down, H, inside)
            xp.multiply(self._place, W, out=place)
            self._border(self._x, right, W, self._tests[0])
            xp.logical_and(inside, self._tests[0], out=inside)
            xp.add(place, self._place, out=place)
            xp.add(place, indices * (C * H * W), out=place)

    def _border(self, start: Array, step: int, size: int, inside: Array) -> None:
        """``_place`` = the positions ``start + step`` brought into the picture, and whether they count."""
        xp, place = self.xp, self._place
        xp.add(start, step, out=place)
        if self._reflect:
            inside.fill(True)
            period = max(1, 2 * (size - 1))
            xp.remainder(place, period, out=place)
            xp.subtract(period, place, out=self._work)
            if size > 1:
                xp.minimum(place, self._work, out=place)
            return
        xp.greater_equal(place, 0, out=inside)
        xp.less(place, size, out=self._tests[1])
        xp.logical_and(inside, self._tests[1], out=inside)
        xp.maximum(place, 0, out=place)
        xp.minimum(place, size - 1, out=place)

    def channel(self, number: int) -> Array:
        """The pixels of a channel: (H, W, n)."""
        if not self._smooth:
            return self._tap(number, 0, self._value)
        self._interpolate(number, 0, self._upper)
        self._interpolate(number, 2, self._lower)
        return self._between(self._upper, self._lower, self._fractions[0])

    def _interpolate(self, number: int, tap: int, out: Array) -> None:
        self._tap(number, tap, out)
        self._tap(number, tap + 1, self._value)
        self._between(out, self._value, self._fractions[1])

    def _between(self, first: Array, second: Array, fraction: Array) -> Array:
        """``first`` = ``first * (1 - fraction) + second * fraction``."""
        xp = self.xp
        xp.multiply(second, fraction, out=second)
        xp.subtract(1, fraction, out=fraction)
        xp.multiply(first, fraction, out=first)
        xp.subtract(1, fraction, out=fraction)
        return xp.add(first, second, out=first)

    def _tap(self, number: int, tap: int, out: Array) -> Array:
        xp = self.xp
        _, H, W, _ = self._out.shape
        xp.add(self._tap_places[tap], number * H * W, out=self._work)
        self.device.take(self._images, self._work, out=self._stored)
        out[...] = self._stored
        return xp.multiply(out, self._tap_inside[tap], out=out)


def inside_box(xp: Any, drawn: Array, box: int, out: Array) -> Array:
    """Whether a pixel lies in a box: (H, W, n)."""
    H, W, _ = out.shape
    top, left, height, width = (drawn[BOXES + 4 * box + k] for k in range(4))
    rows, columns = xp.arange(H)[:, None, None], xp.arange(W)[:, None]
    down = (rows >= top) & (rows < top + height)
    return xp.logical_and(down, (columns >= left) & (columns < left + width), out=out)
