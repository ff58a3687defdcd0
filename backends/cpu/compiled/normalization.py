"""Normalization and dropout: a few passes over a channel or a sample, while it is in the cache.

Sums are made in blocks and added up in float64, so that float32 loses no digits over millions of numbers.
"""

from math import inf, sqrt

import numpy as np

from backends.cpu.compiled.functions import NO_FUNCTION, RECTIFY
from backends.cpu.compiled.jit import Doubles, Indices, Kernel, Numbers, as_written, inlined, share
from backends.cpu.compiled.registers import as_number, at, call, one, zero

BLOCK = 2048  # numbers, of which a few arrays stay in the first cache


@inlined
def _sum(x, count):
    total = zero(x)
    for i in range(count):
        total += x[i]
    return total


@inlined
def _sum_of_products(x, y, mean, count):
    total = zero(x)
    for i in range(count):
        total += x[i] * (y[i] - mean)
    return total


@inlined
def _sums_of_powers(x, shift, count):
    """The sums of x - ``shift`` and of its squares."""
    total, squares = zero(x), zero(x)
    for i in range(count):
        apart = x[i] - shift
        total += apart
        squares += apart * apart
    return total, squares


@Kernel
def moments(
    x: Numbers, mean: Numbers, variance: Numbers, rows: int, columns: int, part: int, parts: int
) -> None:
    """``mean`` and biased ``variance`` of each row, merged from those of blocks.

    Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    The sums of a block are those of the distances from the mean up to there.
    """
    first, last = share(rows, part, parts)
    for r in range(first, last):
        row, middle, squares = at(x, r * columns), 0.0, 0.0
        mean[r] = _sum(row, min(columns, BLOCK)) / min(columns, BLOCK)
        for begin in range(0, columns, BLOCK):
            end = min(columns, begin + BLOCK)
            count = end - begin
            total, around = _sums_of_powers(at(row, begin), mean[r], count)
            shift = total / count
            apart = mean[r] + shift - middle
            squares += around - shift * total + apart * apart * begin * count / end
            middle += apart * count / end
            mean[r] = middle
        variance[r] = squares / columns


@Kernel
def normalize(
    x: Numbers, mean: Numbers, variance: Numbers, weight: Numbers, bias: Numbers, epsilon: Numbers,
    addend: Numbers, function: int, constants: Numbers, scratch: Numbers, y: Numbers, rows: int, columns: int,
    has_weight: int, has_bias: int, has_addend: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = the function of (x - mean) / sqrt(variance + epsilon) * weight + bias + addend.

    ``function`` is the address of one of ``functions.VALUES``, NO_FUNCTION or RECTIFY. ``scratch`` has a
    block for each part.
    """
    first, last = share(rows, part, parts)
    calls = function > RECTIFY
    least = zero(x) if function == RECTIFY else zero(x) - inf
    for r in range(first, last):
        scale, middle = one(x) / sqrt(variance[r] + epsilon[0]), mean[r]
        if has_weight != 0:
            scale *= weight[r]
        shift = bias[r] if has_bias != 0 else zero(x)
        for begin in range(0, columns, BLOCK):
            place, count = r * columns + begin, min(columns - begin, BLOCK)
            y_block = at(y, place)
            inner = at(scratch, part * BLOCK) if calls else y_block
            _values(at(x, place), middle, scale, shift, at(addend, place), has_addend, least, inner, count)
            if calls:
                call(function, (inner, constants, y_block, count, 0, 1))


@inlined
def _values(x, middle, scale, shift, addend, has_addend, least, out, count):
    """``out`` = (x - middle) * scale + shift + addend, but at least ``least``; NaN stays."""
    if has_addend != 0:
        for i in range(count):
            value = (x[i] - middle) * scale + shift + addend[i]
            out[i] = least if value < least else value
    else:
        for i in range(count):
            value = (x[i] - middle) * scale + shift
            out[i] = least if value < least else value


@inlined
def _inner_grad(dy, x, middle, scale, shift, addend, has_addend, function, constants, values, out, count):
    """``out`` = dy * the slope of the function, for what ``normalize`` gives to it."""
    if function == RECTIFY:
        if has_addend != 0:
            for i in range(count):
                value, given = (x[i] - middle) * scale + shift + addend[i], dy[i]
                out[i] = given if value > 0 else zero(x)
        else:
            for i in range(count):
                value, given = (x[i] - middle) * scale + shift, dy[i]
                out[i] = given if value > 0 else zero(x)
    else:
        _values(x, middle, scale, shift, addend, has_addend, zero(x) - inf, values, count)
        call(function, (dy, values, constants, out, count, 0, 1))


@Kernel
def normalize_grad(
    dy: Numbers, x: Numbers, mean: Numbers, variance: Numbers, weight: Numbers, bias: Numbers,
    epsilon: Numbers, addend: Numbers, function: int, constants: Numbers, scratch: Numbers, inner: Numbers,
    weight_grad: Numbers, bias_grad: Numbers, dx: Numbers, rows: int, columns: int, has_weight: int,
    has_bias: int, has_addend: int, keeps: int, has_weight_grad: int, has_bias_grad: int, input_grad: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """The gradients of ``normalize``.

    ``function`` is the address of one of ``functions.GRADIENTS``, NO_FUNCTION or RECTIFY. With a
    function, ``inner``, which may be ``dx``, gets the gradient of its argument, if it ``keeps`` that.
    Otherwise it is computed block by block, and again for ``dx``. ``scratch`` has two blocks for each part.
    """
    first, last = share(rows, part, parts)
    values, block = at(scratch, 2 * part * BLOCK), at(scratch, (2 * part + 1) * BLOCK)
    for r in range(first, last):
        scale, middle = one(x) / sqrt(variance[r] + epsilon[0]), mean[r]
        factor = scale * weight[r] if has_weight != 0 else scale
        shift = bias[r] if has_bias != 0 else zero(x)
        total, along = 0.0, 0.0
        for begin in range(0, columns, BLOCK):
            place, count = r * columns + begin, min(columns - begin, BLOCK)
            x_block, grad = at(x, place), at(dy, place)
            if function != NO_FUNCTION:
                grad = at(inner, place) if keeps != 0 else block
                _inner_grad(at(dy, place), x_block, middle, factor, shift, at(addend, place), has_addend,
                            function, constants, values, grad, count)  # fmt: skip
            total += _sum(grad, count)
            along += _sum_of_products(grad, x_block, middle, count)
        along *= scale
        if has_weight_grad != 0:
            weight_grad[r] = along
        if has_bias_grad != 0:
            bias_grad[r] = total
        if input_grad != 0:
            # dx = factor (grad - mean(grad) - normalized mean(grad normalized))
            level, slope = as_number(x, total / columns), as_number(x, along / columns) * scale
            for begin in range(0, columns, BLOCK):
                place, count = r * columns + begin, min(columns - begin, BLOCK)
                x_block, dx_block, grad = at(x, place), at(dx, place), at(dy, place)
                if function != NO_FUNCTION and keeps != 0:
                    grad = at(inner, place)
                elif function != NO_FUNCTION:
                    grad = block
                    _inner_grad(at(dy, place), x_block, middle, factor, shift, at(addend, place), has_addend,
                                function, constants, values, grad, count)  # fmt: skip
                for i in range(count):
                    dx_block[i] = factor * (grad[i] - level - (x_block[i] - middle) * slope)


@Kernel
def fold(
    weight: Numbers, bias: Numbers, mean: Numbers, variance: Numbers, scale: Numbers, shift: Numbers,
    epsilon: Numbers, out_weight: Numbers, out_bias: Numbers, rows: int, columns: int, places: int,
    has_bias: int, has_scale: int, has_shift: int, part: int, parts: int,
) -> None:  # fmt: skip
    """The weights and biases of a product that include the normalization of its output's channels."""
    first, last = share(rows, part, parts)
    for r in range(first, last):
        factor = one(weight) / sqrt(variance[r] + epsilon[0])
        if has_scale != 0:
            factor *= scale[r]
        add = shift[r] if has_shift != 0 else zero(weight)
        row, out_row = at(weight, r * columns), at(out_weight, r * columns)
        for i in range(columns):
            out_row[i] = row[i] * factor
        for i in range(r * places, (r + 1) * places):
            before = bias[i] if has_bias != 0 else zero(weight)
            out_bias[i] = (before - mean[r]) * factor + add


@Kernel
def normalize_groups(
    x: Numbers, weight: Numbers, bias: Numbers, epsilon: Numbers, mean: Numbers, scale: Numbers,
    sums: Doubles, y: Numbers, groups: int, rows: int, N: int, rows_of_weight: int, has_weight: int,
    has_bias: int, part: int, parts: int,
) -> None:  # fmt: skip
    """Each sample's groups of ``rows`` rows normalized: x (groups * rows, N); ``sums`` (N,) is scratch."""
    first, last = share(N, part, parts)
    for g in range(groups):
        means, scales = at(mean, g * N), at(scale, g * N)
        for n in range(first, last):
            sums[n] = 0
        for r in range(g * rows, (g + 1) * rows):
            row = at(x, r * N)
            for n in range(first, last):
                sums[n] += row[n]
        for n in range(first, last):
            means[n] = sums[n] / rows
            sums[n] = 0
        for r in range(g * rows, (g + 1) * rows):
            row = at(x, r * N)
            for n in range(first, last):
                sums[n] += (row[n] - means[n]) * (row[n] - means[n])
        for n in range(first, last):
            scales[n] = 1 / sqrt(sums[n] / rows + epsilon[0])
        for r in range(g * rows, (g + 1) * rows):
            row, out = at(x, r * N), at(y, r * N)
            factor = weight[r // rows_of_weight] if has_weight != 0 else one(x)
            shift = bias[r // rows_of_weight] if has_bias != 0 else zero(x)
            for n in range(first, last):
                out[n] = (row[n] - means[n]) * scales[n] * factor + shift


@Kernel
def normalize_groups_grad(
    dy: Numbers, x: Numbers, mean: Numbers, scale: Numbers, weight: Numbers, sums: Doubles, dx: Numbers,
    groups: int, rows: int, N: int, rows_of_weight: int, has_weight: int, part: int, parts: int,
) -> None:  # fmt: skip
    """The gradient of the input of ``normalize_groups``; ``sums`` (2, N) is scratch."""
    first, last = share(N, part, parts)
    total, along = at(sums, 0), at(sums, N)
    for g in range(groups):
        means, scales = at(mean, g * N), at(scale, g * N)
        for n in range(first, last):
            total[n], along[n] = 0, 0
        for r in range(g * rows, (g + 1) * rows):
            row, grad = at(x, r * N), at(dy, r * N)
            factor = weight[r // rows_of_weight] if has_weight != 0 else one(x)
            for n in range(first, last):
                total[n] += grad[n] * factor
                along[n] += grad[n] * factor * (row[n] - means[n])
        for n in range(first, last):
            total[n] = total[n] / rows
            along[n] = along[n] / rows * scales[n] * scales[n]
        for r in range(g * rows, (g + 1) * rows):
            row, grad, out = at(x, r * N), at(dy, r * N), at(dx, r * N)
            factor = weight[r // rows_of_weight] if has_weight != 0 else one(x)
            for n in range(first, last):
                out[n] = scales[n] * (grad[n] * factor - total[n] - (row[n] - means[n]) * along[n])


@Kernel
def normalize_groups_grad_weight(
    dy: Numbers, x: Numbers, mean: Numbers, scale: Numbers, weight_grad: Numbers, bias_grad: Numbers,
    size: int, rows: int, N: int, rows_of_weight: int, has_bias: int, part: int, parts: int,
) -> None:  # fmt: skip
    """The gradients of weight and bias of ``normalize_groups``."""
    first, last = share(size, part, parts)
    for w in range(first, last):
        along, total = 0.0, 0.0
        for r in range(w * rows_of_weight, (w + 1) * rows_of_weight):
            row, grad = at(x, r * N), at(dy, r * N)
            means, scales = at(mean, r // rows * N), at(scale, r // rows * N)
            here = zero(x)
            for n in range(N):
                here += grad[n] * (row[n] - means[n]) * scales[n]
            along += here
            total += _sum(grad, N)
        weight_grad[w] = along
        if has_bias != 0:
            bias_grad[w] = total


@inlined
def _scrambled(bits):
    """The hash of backends.kernels.hashing, in 32 bits, so that several numbers fit a register."""
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ (bits >> np.uint32(15)))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ (bits >> np.uint32(16)))


@as_written
def dropout(
    x: Numbers, counters: Indices, scale: Numbers, y: Numbers, stream: int, limit: int, positions: int,
    rows: int, N: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = scale * x if the hash of a position, which has ``rows`` rows, is at least ``limit``; else 0."""
    first, last = share(positions, part, parts)
    offset = np.uint32(counters[1] + _scrambled(np.uint32(counters[0] ^ stream)))
    least, factor, nothing = np.uint32(limit), scale[0], zero(x)
    for position in range(first, last):
        own = _scrambled(np.uint32(position))
        for r in range(position * rows, (position + 1) * rows):
            row, out = at(x, r * N), at(y, r * N)
            for n in range(N):
                bits = _scrambled(np.uint32(own ^ _scrambled(np.uint32(n + offset))))
                out[n] = row[n] * (factor if bits >= least else nothing)
