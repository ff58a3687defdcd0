"""Augmentation with the bits of plain NumPy: what is drawn for each sample, and the gather of its pixels."""

from math import floor

from backends.cpu.compiled.jit import Bytes, Doubles, Indices, Numbers, as_in_numpy, inlined, share
from backends.cpu.compiled.registers import as_number, at, one, zero
from backends.cpu.compiled.steps import IMAGES
from backends.kernels.augmentation import (
    AFFINE,
    BLEND,
    BOX_SIZE,
    BOX_TOP,
    BOXES,
    COLOUR,
    COLUMNS,
    FINE,
    GAIN,
    GEOMETRY,
    OFFSET,
    SHARE,
    TARGET_SHARE,
    UNIT,
)

STEP = 6  # numbers of a step: those of backends.kernels.augmentation.Step
WORD = 0xFFFFFFFF


@inlined
def _scrambled(bits):
    """The hash of backends.kernels.hashing."""
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & WORD
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) & WORD
    return bits ^ (bits >> 16)


@inlined
def _rounded(value):
    """A multiple of 1 / UNIT."""
    return floor(value * UNIT + 0.5) / UNIT


@as_in_numpy
def draw(
    samples: Indices, keys: Indices, program: Indices, steps: int, table: Doubles, drawn: Doubles, rows: int,
    H: int, W: int, count: int, N: int, part: int, parts: int,
) -> None:  # fmt: skip
    """What the steps of a program draw for each sample; ``count`` is that of all rows of N samples."""
    first, last = share(count, part, parts)
    for n in range(first, last):
        mine = at(drawn, n // N * rows * N + n % N)
        for place in range(rows):
            mine[place * N] = 0.0
        mine[AFFINE * N], mine[(AFFINE + 4) * N], mine[GAIN * N], mine[SHARE * N] = 1.0, 1.0, 1.0, 1.0
        for number in range(steps):
            step = at(program, number * STEP)
            alternates = step[4]
            bits = _scrambled((samples[n] + keys[alternates]) & WORD)
            bits = _scrambled(bits ^ _scrambled(number))
            index = ((bits >> 31) + keys[2]) & 1 if alternates != 0 else (bits * step[3]) >> 48
            if index < step[2]:
                _change(mine, N, step[0], BOXES + 4 * step[5], at(table, (step[1] + index) * COLUMNS))
        area = 1.0
        for axis in range(2):
            start = mine[(BOXES + axis) * N]
            end = min(start + mine[(BOXES + 2 + axis) * N], float(H if axis == 0 else W))
            area *= max(end - max(start, 0.0), 0.0)
        mine[TARGET_SHARE * N] = mine[SHARE * N] * (1.0 - area / (H * W))


@inlined
def _change(mine, N, kind, box, row):
    """Let one row of the table change what has been drawn for a sample."""
    if kind == GEOMETRY:
        for half in range(2):
            target = at(mine, (AFFINE + 3 * half) * N)
            a, b, c = target[0], target[N], target[2 * N]
            target[0] = _rounded(a * row[0] + b * row[3])
            target[N] = _rounded(a * row[1] + b * row[4])
            target[2 * N] = _rounded(a * row[2] + b * row[5] + c)
    elif kind == COLOUR:
        mine[GAIN * N] = _rounded(row[0] * mine[GAIN * N])
        mine[OFFSET * N] = _rounded(row[0] * mine[OFFSET * N] + row[1])
    elif kind == BLEND:
        mine[SHARE * N] = row[0]
    elif kind == BOX_SIZE:
        mine[(box + 2) * N], mine[(box + 3) * N] = row[0], row[1]
    else:
        axis = 0 if kind == BOX_TOP else 1
        mine[(box + axis) * N] = row[0] - floor(row[1] * mine[(box + 2 + axis) * N])


@inlined
def _reflected(place, size):
    """A place brought into 0..size - 1 by mirrors on the first and the last pixel."""
    if size == 1:
        return 0
    place %= 2 * (size - 1)
    return place if place < size else 2 * (size - 1) - place


@inlined
def _tap(image, y, x, H, W, reflect, out):
    """The pixel at (y, x), which may lie outside."""
    if reflect != 0:
        return as_number(out, image[_reflected(y, H) * W + _reflected(x, W)])
    if 0 <= y < H and 0 <= x < W:
        return as_number(out, image[y * W + x])
    return zero(out)


@inlined
def _interpolated(image, y, x, H, W, reflect, out):
    """The value at (y, x) in 1/UNIT pixels, rounded to 1/FINE, between four pixels."""
    y, x = (y + UNIT // FINE // 2) // FINE, (x + UNIT // FINE // 2) // FINE
    down = as_number(out, y % FINE) * as_number(out, 1 / FINE)
    right = as_number(out, x % FINE) * as_number(out, 1 / FINE)
    y, x = y // FINE, x // FINE
    if 0 <= y < H - 1 and 0 <= x < W - 1:
        seen = at(image, y * W + x)
        p, q = as_number(out, seen[0]), as_number(out, seen[1])
        r, s = as_number(out, seen[W]), as_number(out, seen[W + 1])
    else:
        p, q = _tap(image, y, x, H, W, reflect, out), _tap(image, y, x + 1, H, W, reflect, out)
        r, s = _tap(image, y + 1, x, H, W, reflect, out), _tap(image, y + 1, x + 1, H, W, reflect, out)
    upper = p * (one(out) - right) + q * right
    lower = r * (one(out) - right) + s * right
    return upper * (one(out) - down) + lower * down


@inlined
def _place_of_line(mine, i, H, W, N, reflect):
    """(row, column, step, begin, end): line i comes from ``row``, from ``column`` on in steps of 1 or -1.

    Its pixels from ``begin`` up to ``end`` come from inside of the image.
    """
    row, column = i + int(mine[2 * N]), int(mine[5 * N])
    step = int(mine[4 * N])
    if reflect != 0:
        row = _reflected(row, H)
    begin, end = (-column, W - column) if step > 0 else (column - W + 1, column + 1)
    begin = max(0, min(W, begin))
    end = max(begin, min(W, end)) if 0 <= row < H else begin
    return row, column, step, begin, end


@inlined
def _whole_pixels(images, order, drawn, reflect, less, times, lines, out, C, H, W, N, line, some, last):
    """A line of the images from ``some`` up to ``last``, whose pixels move by whole pixels.

    It is put together in ``lines``, pixels as they are stored, with the images next to each other.
    """
    channel, i = line // H, line % H
    for n in range(some, last):
        row, column, step, begin, end = _place_of_line(at(drawn, n), i, H, W, N, reflect)
        image, target = at(images, (order[n] * C + channel) * H * W), at(lines, n - some)
        for j in range(begin):
            target[j * IMAGES] = _pixel(image, row, column + j * step, W, reflect)
        source = at(image, row * W + column)
        for j in range(begin, end):
            target[j * IMAGES] = source[j * step]
        for j in range(end, W):
            target[j * IMAGES] = _pixel(image, row, column + j * step, W, reflect)
    gains, offsets = at(drawn, GAIN * N + some), at(drawn, OFFSET * N + some)
    changes = 0
    for n in range(last - some):
        changes += 1 if (gains[n] != 1) | (offsets[n] != 0) else 0
    for j in range(W):
        source, target = at(lines, j * IMAGES), at(out, (line * W + j) * N + some)
        if changes == 0:
            for n in range(last - some):
                target[n] = (as_number(out, source[n]) - less) * times
        else:
            for n in range(last - some):
                gain, offset = as_number(out, gains[n]), as_number(out, offsets[n])
                target[n] = (as_number(out, source[n]) * gain + offset - less) * times


@inlined
def _pixel(image, row, x, W, reflect):
    """The pixel at x, which lies outside, of a row that lies inside if pixels are reflected."""
    return image[row * W + _reflected(x, W)] if reflect != 0 else zero(image)


@inlined
def _between_pixels(images, order, drawn, reflect, less, times, out, C, H, W, N, line, some, last):
    """A line of the images from ``some`` up to ``last``, with values that are interpolated."""
    channel, i = line // H, line % H
    for n in range(some, last):
        mine, image = at(drawn, n), at(images, (order[n] * C + channel) * H * W)
        target = at(out, line * W * N + n)
        gain, offset = as_number(out, mine[GAIN * N]), as_number(out, mine[OFFSET * N])
        down, right = int(mine[N] * UNIT), int(mine[4 * N] * UNIT)
        y = int(mine[0] * UNIT) * i + int(mine[2 * N] * UNIT)
        x = int(mine[3 * N] * UNIT) * i + int(mine[5 * N] * UNIT)
        for j in range(W):
            value = _interpolated(image, y, x, H, W, reflect, out)
            target[j * N] = (value * gain + offset - less) * times
            y, x = y + down, x + right


@inlined
def _augment(
    images, order, drawn, rows, reflect, smooth, shift, scale, lines, out, C, H, W, N, part, parts,
):  # fmt: skip
    """Each line of the output, for a few images at a time: the pixels from where it was drawn."""
    first, beyond = share(C * H, part, parts)
    mine = at(lines, part * W * IMAGES)
    for some in range(0, N, IMAGES):
        last = min(N, some + IMAGES)
        for line in range(first, beyond):
            less, times = shift[line // H], scale[line // H]
            if smooth != 0:
                _between_pixels(images, order, drawn, reflect, less, times, out, C, H, W, N, line, some, last)
            else:
                _whole_pixels(
                    images, order, drawn, reflect, less, times, mine, out, C, H, W, N, line, some, last
                )
    for line in range(first, beyond):
        for box in range(BOXES + 4, rows, 4):
            _erase(at(drawn, box * N), at(out, line * W * N), line % H, W, N)


@inlined
def _erase(box, target, i, W, N):
    """Zeros where line i of each image lies in its box."""
    for n in range(N):
        top, left = int(box[n]), int(box[N + n])
        if top <= i < top + int(box[2 * N + n]):
            for j in range(max(0, left), min(W, left + int(box[3 * N + n]))):
                target[j * N + n] = zero(target)


@as_in_numpy
def augment_bytes(
    images: Bytes, order: Indices, drawn: Doubles, rows: int, reflect: int, smooth: int, shift: Numbers,
    scale: Numbers, lines: Bytes, out: Numbers, C: int, H: int, W: int, N: int, part: int, parts: int,
) -> None:  # fmt: skip
    """A batch of augmented byte images, batch last."""
    _augment(images, order, drawn, rows, reflect, smooth, shift, scale, lines, out, C, H, W, N, part, parts)


@as_in_numpy
def augment_numbers(
    images: Numbers, order: Indices, drawn: Doubles, rows: int, reflect: int, smooth: int, shift: Numbers,
    scale: Numbers, lines: Numbers, out: Numbers, C: int, H: int, W: int, N: int, part: int, parts: int,
) -> None:  # fmt: skip
    """A batch of augmented float images, batch last."""
    _augment(images, order, drawn, rows, reflect, smooth, shift, scale, lines, out, C, H, W, N, part, parts)


@as_in_numpy
def mix(
    x: Numbers, others: Numbers, drawn: Doubles, C: int, H: int, W: int, N: int, part: int, parts: int
) -> None:
    """Each sample of x, its share of the mixture with the other one; a box is the other one's alone."""
    first, last = share(C * H, part, parts)
    for line in range(first, last):
        for j in range(W):
            mixed, other = at(x, (line * W + j) * N), at(others, (line * W + j) * N)
            for n in range(N):
                own = as_number(x, drawn[SHARE * N + n])
                mixed[n] = mixed[n] * own + other[n] * (one(x) - own)
        i = line % H
        for n in range(N):
            box = at(drawn, BOXES * N + n)
            top, left = int(box[0]), int(box[N])
            if top <= i < top + int(box[2 * N]):
                for j in range(max(0, left), min(W, left + int(box[3 * N]))):
                    x[(line * W + j) * N + n] = others[(line * W + j) * N + n]
