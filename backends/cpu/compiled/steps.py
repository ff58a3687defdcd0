"""Kernels of a training step outside the layers: batches, losses and updates, each in a single pass."""

from math import exp, log, nan, sqrt

from backends.cpu.compiled.jit import Bytes, Doubles, Indices, Kernel, Numbers, as_written, inlined, share
from backends.cpu.compiled.registers import at, one, zero

# of a block: its numbers, for bytes and for floats, stay in the first cache
BYTES_AT_ONCE, NUMBERS_AT_ONCE, IMAGES = 256, 64, 64


@inlined
def _gather(images, order, shift, scale, block, out, plane, pixels, at_once, N, part, parts):
    """``out[p, n]`` = (images[order[n], p] - shift) * scale: (all, pixels) -> (pixels, N).

    The images of a block are read one after the other, and its pixels are written one after the other.
    """
    groups = -(-N // IMAGES)
    first, last = share(-(-pixels // at_once) * groups, part, parts)
    mine = at(block, part * at_once * IMAGES)
    for task in range(first, last):
        start, some = task // groups * at_once, task % groups * IMAGES
        end, count = min(pixels, start + at_once), min(N - some, IMAGES)
        for n in range(count):
            image, target = at(images, order[some + n] * pixels + start), at(mine, n)
            for p in range(end - start):
                target[p * IMAGES] = image[p]
        for p in range(start, end):
            less, times = shift[p // plane], scale[p // plane]
            source, target = at(mine, (p - start) * IMAGES), at(out, p * N + some)
            for n in range(count):
                target[n] = (source[n] - less) * times


@as_written
def gather_bytes(
    images: Bytes, order: Indices, shift: Numbers, scale: Numbers, block: Bytes, out: Numbers, plane: int,
    pixels: int, N: int, part: int, parts: int,
) -> None:  # fmt: skip
    """A batch of byte images, batch last; shift and scale are those of each channel."""
    _gather(images, order, shift, scale, block, out, plane, pixels, BYTES_AT_ONCE, N, part, parts)


@as_written
def gather_numbers(
    images: Numbers, order: Indices, shift: Numbers, scale: Numbers, block: Numbers, out: Numbers, plane: int,
    pixels: int, N: int, part: int, parts: int,
) -> None:  # fmt: skip
    """A batch of float images, batch last; shift and scale are those of each channel."""
    _gather(images, order, shift, scale, block, out, plane, pixels, NUMBERS_AT_ONCE, N, part, parts)


@Kernel
def add_bias(y: Numbers, bias: Numbers, rows: int, columns: int, rectify: int, part: int, parts: int) -> None:
    """``y[r, c] += bias[r]``; with ``rectify`` negative values become 0."""
    first, last = share(rows, part, parts)
    for r in range(first, last):
        row, add = at(y, r * columns), bias[r]
        if rectify != 0:
            for c in range(columns):
                value = row[c] + add
                row[c] = zero(y) if value < 0 else value  # NaN stays
        else:
            for c in range(columns):
                row[c] += add


@Kernel
def sum_rows(x: Numbers, sums: Numbers, rows: int, columns: int, part: int, parts: int) -> None:
    """``sums`` (rows,) = the sum of each row of x (rows, columns)."""
    first, last = share(rows, part, parts)
    for r in range(first, last):
        row, total = at(x, r * columns), zero(x)
        for c in range(columns):
            total += row[c]
        sums[r] = total


@Kernel
def tanh_grad(dy: Numbers, y: Numbers, dx: Numbers, size: int, part: int, parts: int) -> None:
    """``dx = dy (1 - y^2)``."""
    first, last = share(size, part, parts)
    unit = one(y)
    for i in range(first, last):
        dx[i] = dy[i] * (unit - y[i] * y[i])


@inlined
def _largest(y, classes, N, n):
    """The largest value of column n, or NaN if it contains NaN."""
    best = y[n]
    for c in range(1, classes):
        value = y[c * N + n]
        best = value if value > best or value != value else best
    return best


@inlined
def _exponentials(x, y, classes, N, n):
    """Column n of ``y`` = exp(x - its largest); -> (the largest, the sum of the exponentials)."""
    largest, total = _largest(x, classes, N, n), zero(x)
    for c in range(classes):
        y[c * N + n] = exp(x[c * N + n] - largest)
        total += y[c * N + n]
    return largest, total


@Kernel
def softmax(x: Numbers, y: Numbers, classes: int, N: int, part: int, parts: int) -> None:
    """``y`` = exp(x - max x) / sum exp(x - max x) down each column of (classes, N)."""
    first, last = share(N, part, parts)
    for n in range(first, last):
        _, total = _exponentials(x, y, classes, N, n)
        for c in range(classes):
            y[c * N + n] /= total


@Kernel
def softmax_grad(dy: Numbers, y: Numbers, dx: Numbers, classes: int, N: int, part: int, parts: int) -> None:
    """``dx`` = y * (dy - sum(y * dy)) down each column of (classes, N)."""
    first, last = share(N, part, parts)
    for n in range(first, last):
        total = zero(y)
        for c in range(classes):
            total += y[c * N + n] * dy[c * N + n]
        for c in range(classes):
            dx[c * N + n] = y[c * N + n] * (dy[c * N + n] - total)


@as_written
def log_softmax(x: Numbers, y: Numbers, classes: int, N: int, part: int, parts: int) -> None:
    """``y`` = x - max x - log(sum exp(x - max x)) down each column of (classes, N)."""
    first, last = share(N, part, parts)
    for n in range(first, last):
        largest, total = _exponentials(x, y, classes, N, n)
        rest = log(total)
        for c in range(classes):
            y[c * N + n] = (x[c * N + n] - largest) - rest


@Kernel
def log_softmax_grad(
    dy: Numbers, y: Numbers, dx: Numbers, classes: int, N: int, part: int, parts: int
) -> None:
    """``dx`` = dy - exp(y) * sum(dy) down each column of (classes, N)."""
    first, last = share(N, part, parts)
    for n in range(first, last):
        total = zero(y)
        for c in range(classes):
            total += dy[c * N + n]
        for c in range(classes):
            dx[c * N + n] = dy[c * N + n] - exp(y[c * N + n]) * total


@as_written
def prelu(
    x: Numbers, weight: Numbers, y: Numbers, rows: int, columns: int, step: int, part: int, parts: int
) -> None:
    """``y[r, c]`` = x if x > 0, else weight[r] * x; ``step`` is 0 if all rows share one weight, else 1."""
    first, last = share(rows, part, parts)
    for r in range(first, last):
        x_row, y_row, slope = at(x, r * columns), at(y, r * columns), weight[r * step]
        for c in range(columns):
            y_row[c] = x_row[c] if x_row[c] > 0 else slope * x_row[c]


@Kernel
def prelu_grad(
    dy: Numbers, x: Numbers, weight: Numbers, sums: Numbers, dx: Numbers, rows: int, columns: int, step: int,
    input_grad: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``sums[r]`` = sum(dy * min(x, 0)) of each row, and ``dx`` if ``input_grad``."""
    first, last = share(rows, part, parts)
    for r in range(first, last):
        dy_row, x_row, slope, total = at(dy, r * columns), at(x, r * columns), weight[r * step], zero(x)
        for c in range(columns):
            total += zero(x) if x_row[c] > 0 else dy_row[c] * x_row[c]
        sums[r] = total
        if input_grad != 0:
            dx_row = at(dx, r * columns)
            for c in range(columns):
                dx_row[c] = dy_row[c] if x_row[c] > 0 else slope * dy_row[c]


@as_written
def cross_entropy(
    y: Numbers, labels: Indices, losses: Numbers, dy: Numbers, divisor: Numbers, classes: int, N: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``losses[n]`` = -log softmax(y)[label], ``dy`` = (the softmax, less 1 at the label) / divisor."""
    first, last = share(N, part, parts)
    over = divisor[0]
    for n in range(first, last):
        largest, total = _exponentials(y, dy, classes, N, n)
        for c in range(classes):
            dy[c * N + n] = (dy[c * N + n] / total - (1 if c == labels[n] else 0)) / over
        if 0 <= labels[n] < classes:
            label = labels[n] * N + n
            losses[n] = log(total) - (y[label] - largest)
        else:
            losses[n] = nan  # there is no such class


@as_written
def soft_cross_entropy(
    y: Numbers, targets: Numbers, losses: Numbers, dy: Numbers, divisor: Numbers, classes: int, N: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``losses[n]`` = -sum(t log softmax(y)), ``dy`` = (sum(t) * the softmax - t) / divisor."""
    first, last = share(N, part, parts)
    over = divisor[0]
    for n in range(first, last):
        largest, total = _exponentials(y, dy, classes, N, n)
        above, mass, loss = log(total), zero(y), zero(y)
        for c in range(classes):
            target = targets[c * N + n]
            mass += target
            if target != 0:
                loss += target * (above - (y[c * N + n] - largest))
        losses[n] = loss
        for c in range(classes):
            dy[c * N + n] = (dy[c * N + n] / total * mass - targets[c * N + n]) / over


@Kernel
def class_targets(
    labels: Indices, class_weights: Numbers, settings: Numbers, ignores: int, ignored: int, out: Numbers,
    shares: Numbers, classes: int, N: int, part: int, parts: int,
) -> None:  # fmt: skip
    """Targets of labels with smoothing and weights, and the weight of each label.

    The settings are the target of the label's class, and what is added to those of all.
    """
    first, last = share(N, part, parts)
    right, others = settings[0], settings[1]
    for n in range(first, last):
        label = labels[n]
        factor = one(out)
        if ignores != 0 and label == ignored:
            factor = zero(out)
            shares[n] = zero(out)
        elif 0 <= label < classes:
            shares[n] = class_weights[label]
        else:
            factor = factor * nan  # there is no such class
            shares[n] = factor
        for c in range(classes):
            target = right + others if c == label else others
            out[c * N + n] = target * class_weights[c] * factor


@Kernel
def binary_cross_entropy(
    y: Numbers, labels: Indices, losses: Numbers, dy: Numbers, settings: Numbers, classes: int, N: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``losses[n]`` = -mean(t log p + (1 - t) log(1 - p)), ``dy`` = its gradient over the divisor.

    The settings are the lowest and the highest p, and the divisor.
    """
    first, last = share(N, part, parts)
    low, high, over = settings[0], settings[1], settings[2]
    for n in range(first, last):
        total = zero(y)
        for c in range(classes):
            p = y[c * N + n]
            p = low if p < low else high if p > high else p  # NaN stays
            right = p if c == labels[n] else 1 - p
            total += log(right)
            dy[c * N + n] = (-1 if c == labels[n] else 1) / (right * classes * over)
        losses[n] = -total / classes


@Kernel
def tally(
    losses: Numbers, y: Numbers, labels: Indices, sums: Doubles, classes: int, N: int, part: int, parts: int
) -> None:
    """``sums`` += (the losses' sum, how many columns are largest at their label, N); in one part alone."""
    for n in range(N):
        best = 0
        for c in range(1, classes):
            value, largest = y[c * N + n], y[best * N + n]
            if value > largest or (value != value and largest == largest):
                best = c
        sums[0] += losses[n]
        sums[1] += 1 if best == labels[n] else 0
    sums[2] += N


@Kernel
def next_batch(
    cursor: Indices, order: Indices, labels: Indices, rates: Numbers, chosen: Indices, chosen_labels: Indices,
    rate: Numbers, has_labels: int, rows: int, N: int, count: int, steps: int, columns: int, part: int,
    parts: int,
) -> None:  # fmt: skip
    """The next N of each row of ``order``, round and round, and the step's rates; in one part alone.

    The labels are those of the first row.
    """
    first, step = cursor[0], cursor[1]
    for row in range(rows):
        for n in range(N):
            chosen[row * N + n] = order[row * count + (first + n) % count]
    if has_labels != 0:
        for n in range(N):
            chosen_labels[n] = labels[chosen[n]]
    for column in range(columns):
        rate[column] = rates[step % steps * columns + column]
    cursor[0], cursor[1] = first + N, step + 1


@as_written
def sgd(
    value: Numbers, grad: Numbers, velocity: Numbers, rate: Numbers, momenta: Numbers, settings: Numbers,
    has_velocity: int, nesterov: int, size: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``v = momentum * v + g + decay * value``, ``value -= rate * v``; settings: decay, tiny."""
    first, last = share(size, part, parts)
    momentum, decay, tiny, step = momenta[0], settings[0], settings[1], rate[0]
    if has_velocity == 0:
        for i in range(first, last):
            value[i] -= step * (grad[i] + decay * value[i])
    else:
        for i in range(first, last):
            gradient = grad[i] + decay * value[i]
            v = momentum * velocity[i] + gradient
            v = zero(value) if abs(v) < tiny else v
            velocity[i] = v
            value[i] -= step * (gradient + momentum * v if nesterov != 0 else v)


@as_written
def adam(
    value: Numbers, grad: Numbers, mean: Numbers, square: Numbers, powers: Numbers, rate: Numbers,
    settings: Numbers, decoupled: int, size: int, part: int, parts: int,
) -> None:  # fmt: skip
    """Adam's update; settings are (beta 1, beta 2, epsilon, decay, tiny), powers beta^step of both."""
    first, last = share(size, part, parts)
    beta_1, beta_2, epsilon, decay, tiny = settings[0], settings[1], settings[2], settings[3], settings[4]
    unit = one(value)
    step, correction = rate[0] / (unit - powers[0]), unit / (unit - powers[1])
    for i in range(first, last):
        old = value[i]
        gradient = grad[i]
        if decoupled != 0:
            old -= rate[0] * decay * old
        else:
            gradient += decay * old
        m = beta_1 * mean[i] + (unit - beta_1) * gradient
        s = beta_2 * square[i] + (unit - beta_2) * gradient * gradient
        m = zero(value) if abs(m) < tiny else m
        s = zero(value) if s < tiny else s
        mean[i], square[i] = m, s
        value[i] = old - step * m / (sqrt(s * correction) + epsilon)
