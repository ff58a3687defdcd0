"""Max pooling, batch last, and its gradient, line by line.

``pool`` contains the sizes in the order of :class:`Pool`; the parts are lines. Gradients are gathered: each
line of dx looks up the windows that contain it, so no two parts write to the same element.
"""

from math import inf
from typing import NamedTuple

import numpy as np

from backends.cpu.compiled.jit import Bytes, Indices, Kernel, Numbers, inlined, share
from backends.cpu.compiled.registers import as_number, at, call, zero


class Pool(NamedTuple):
    """The sizes of a pooling: its output and its window."""

    PH: int
    PW: int
    KH: int
    KW: int
    stride_h: int
    stride_w: int
    padding_h: int
    padding_w: int
    dilation_h: int
    dilation_w: int


@inlined
def inside(tap, size, positions, stride, padding, dilation):
    """(first, end) of the positions at which a tap of the window is inside the input."""
    offset = padding - tap * dilation
    return max(0, -(-offset // stride)), min(positions, (size - 1 + offset) // stride + 1)


@inlined
def runs_of(first, beyond, stride, N):
    """(runs, numbers in each, step in the input from number to number) of columns ``first`` to ``beyond``."""
    if stride == 1:
        return 1, (beyond - first) * N, 1
    if N == 1:
        return 1, beyond - first, stride
    return beyond - first, N, 1


@inlined
def _take_larger(best, who, keep, seen, step, count, tap):
    """``best`` = the larger of itself and ``seen``, or NaN; ``who`` = the tap where that is ``seen``."""
    if keep == 0:
        for n in range(count):
            value = seen[n * step]
            best[n] = value if (value > best[n]) | (value != value) else best[n]
    elif step == 1:
        for n in range(count):
            value, before, earlier = seen[n], best[n], who[n]  # LLVM vectorizes if all are read first
            better = (value > before) | (value != value)
            best[n] = value if better else before
            who[n] = tap if better else earlier
    else:
        for n in range(count):
            value = seen[n * step]
            if value > best[n] or value != value:
                best[n], who[n] = value, tap


@Kernel
def pool_line(
    y: Numbers, winner: Bytes, keep: int, x: Numbers, x_row: int, H: int, W: int, N: int, pool: Indices,
    row: int,
) -> None:  # fmt: skip
    """Row ``row`` of one channel's max pooling; row h of its input is at ``x + h * x_row``."""
    PW, KH, KW, stride_h, stride_w = pool[1], pool[2], pool[3], pool[4], pool[5]
    padding_h, padding_w, dilation_h, dilation_w = pool[6], pool[7], pool[8], pool[9]
    top = row * stride_h - padding_h
    upper = max(0, -(top // dilation_h))  # the window's first row inside the input
    for n in range(PW * N):
        y[n] = -inf
    if keep != 0:
        for n in range(PW * N):
            winner[n] = upper * KW
        for column in range(min(PW, -(-padding_w // stride_w))):  # the winner is never padding
            for n in range(column * N, (column + 1) * N):
                winner[n] = upper * KW - (column * stride_w - padding_w) // dilation_w
    for i in range(upper, min(KH, (H - 1 - top) // dilation_h + 1)):
        for j in range(KW):
            first, beyond = inside(j, W, PW, stride_w, padding_w, dilation_w)
            runs, count, step = runs_of(first, beyond, stride_w, N)
            seen = at(x, (top + i * dilation_h) * x_row + (first * stride_w + j * dilation_w - padding_w) * N)
            for run in range(runs):
                target = (first + run) * N
                _take_larger(at(y, target), at(winner, target), keep, at(seen, run * stride_w * N), step,
                             count, np.uint8(i * KW + j))  # fmt: skip


@inlined
def pool_quads(y, winner, keep, x, x_row, PW, stride, N, rectify, bias, b_row, b_column):
    """A line of 2x2 max pooling over x + bias, or over ReLU of that, from the two lines of x under it."""
    least = zero(y) if rectify != 0 else as_number(y, -inf)  # a plain -inf would make wider numbers of all
    for column in range(PW):
        best, who = at(y, column * N), at(winner, column * N)
        left, upper = at(x, stride * column * N), at(bias, stride * column * b_column)
        right, lower = at(left, N), at(upper, b_row)
        left_below, right_below = at(left, x_row), at(right, x_row)
        b0, b1, b2, b3 = upper[0], upper[b_column], lower[0], lower[b_column]
        for n in range(N):
            # NaN is not less than any number, stays, and wins over every number
            v0, v1, v2, v3 = left[n] + b0, right[n] + b1, left_below[n] + b2, right_below[n] + b3
            v0, v1 = least if v0 < least else v0, least if v1 < least else v1
            v2, v3 = least if v2 < least else v2, least if v3 < least else v3
            better = (v1 > v0) | (v1 != v1)
            v0, tap = v1 if better else v0, np.uint8(1) if better else np.uint8(0)
            better = (v2 > v0) | (v2 != v2)
            v0, tap = v2 if better else v0, np.uint8(2) if better else tap
            better = (v3 > v0) | (v3 != v3)
            best[n] = v3 if better else v0
            if keep != 0:
                who[n] = np.uint8(3) if better else tap


@Kernel
def max_pool(
    line_function: int, y: Numbers, winner: Bytes, keep: int, x: Numbers, no_bias: Numbers, C: int, H: int,
    W: int, N: int, pool: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = the largest value in each window, ``winner`` (if ``keep``) its tap; ``no_bias`` is a zero.

    ``line_function`` is the address of ``pool_line``, or 0 if ``pool_quads`` computes the lines.
    """
    PH, PW = pool[0], pool[1]
    first, last = share(C * PH, part, parts)
    for line in range(first, last):
        target, row = line * PW * N, line % PH
        source = at(x, line // PH * H * W * N)
        if line_function == 0:
            upper = at(source, row * pool[4] * W * N)
            pool_quads(at(y, target), at(winner, target), keep, upper, W * N, PW, pool[5], N, 0,
                       no_bias, 0, 0)  # fmt: skip
        else:
            call(line_function, (at(y, target), at(winner, target), keep, source, W * N, H, W, N, pool, row))


@inlined
def _give_back(dx, dy, who, y, rectified, step, count, tap):
    """Add each ``dy`` to ``dx`` where the tap was the winner and, if ``rectified``, ``y`` is positive."""
    if step != 1:
        for n in range(count):
            if who[n] == tap and (rectified == 0 or y[n] > 0):
                dx[n * step] += dy[n]
    elif rectified != 0:
        for n in range(count):
            dx[n] += dy[n] if (who[n] == tap) & (y[n] > 0) else zero(dx)
    else:
        for n in range(count):
            dx[n] += dy[n] if who[n] == tap else zero(dx)


@inlined
def _give_back_pairs(dx, dy, who, y, rectified, upper_tap, columns, N):
    """A line of dx for 2x2 windows with stride 2: each window contributes to two elements or to none."""
    left_tap, right_tap = np.uint8(upper_tap), np.uint8(upper_tap + 1)
    for column in range(columns):
        left, right = at(dx, 2 * column * N), at(dx, (2 * column + 1) * N)
        gradient, winner, value = at(dy, column * N), at(who, column * N), at(y, column * N)
        for n in range(N):
            given = gradient[n] if (rectified == 0) | (value[n] > 0) else zero(dx)
            left[n] = given if winner[n] == left_tap else zero(dx)
            right[n] = given if winner[n] == right_tap else zero(dx)


@inlined
def _row_over(h, i, pool):
    """The row of windows that have row h of the input at their own row i; -1 if there is none."""
    PH, stride_h, below = pool[0], pool[4], h + pool[6] - i * pool[8]
    row = below // stride_h
    return row if (row * stride_h == below) & (row >= 0) & (row < PH) else -1


@Kernel
def pool_grad_line(
    dx: Numbers, dy: Numbers, winner: Bytes, y: Numbers, rectified: int, channel: int, H: int, h: int, W: int,
    N: int, border: int, pool: Indices,
) -> None:  # fmt: skip
    """Line h of the gradient of one channel's max pooling, with a border of zeros on both sides.

    If ``rectified``, it is the gradient through ReLU and max pooling, whose output was ``y``.
    """
    PH, PW, KH, KW, stride_w = pool[0], pool[1], pool[2], pool[3], pool[5]
    padding_w, dilation_w = pool[7], pool[9]
    for n in range((W + 2 * border) * N):
        dx[n] = zero(dx)
    for i in range(KH):
        row = _row_over(h, i, pool)
        if row >= 0:
            for j in range(KW):
                first, beyond = inside(j, W, PW, stride_w, padding_w, dilation_w)
                runs, count, step = runs_of(first, beyond, stride_w, N)
                left = border + first * stride_w + j * dilation_w - padding_w
                for run in range(runs):
                    there = ((channel * PH + row) * PW + first + run) * N
                    _give_back(at(dx, (left + run * stride_w) * N), at(dy, there), at(winner, there),
                               at(y, there), rectified, step, count, np.uint8(i * KW + j))  # fmt: skip


@Kernel
def pool_grad_line_of_pairs(
    dx: Numbers, dy: Numbers, winner: Bytes, y: Numbers, rectified: int, channel: int, H: int, h: int, W: int,
    N: int, border: int, pool: Indices,
) -> None:  # fmt: skip
    """The same for windows with two columns that do not overlap and lie inside the input."""
    PH, PW = pool[0], pool[1]
    for n in range((W + 2 * border) * N):
        dx[n] = zero(dx)
    for i in range(pool[2]):
        row = _row_over(h, i, pool)
        if row >= 0:
            there = (channel * PH + row) * PW * N
            _give_back_pairs(at(dx, border * N), at(dy, there), at(winner, there), at(y, there), rectified,
                             2 * i, PW, N)  # fmt: skip


@inlined
def relu_grad_line(dx, dy, y, width, border):
    """``dx`` = dy where y is positive, with a border of zeros on both sides."""
    inside = at(dx, border)
    for n in range(border):
        dx[n] = inside[width + n] = zero(dx)
    for n in range(width):
        inside[n] = dy[n] if y[n] > 0 else zero(dx)


@Kernel
def relu_grad_line_of_image(
    dx: Numbers, dy: Numbers, winner: Bytes, y: Numbers, rectified: int, channel: int, H: int, h: int, W: int,
    N: int, border: int, pool: Indices,
) -> None:  # fmt: skip
    """Line h of one channel of the gradient through ReLU, with the parameters of ``pool_grad_line``."""
    there = (channel * H + h) * W * N
    relu_grad_line(dx, at(dy, there), at(y, there), W * N, border * N)


@inlined
def sum_images(dx, W, N, sums):
    """The sum over the batch at each column of a line."""
    if N == 1:
        for column in range(W):
            sums[column] = dx[column]
        return
    for column in range(W):
        run = at(dx, column * N)
        total = run[0]
        for n in range(1, N):
            total += run[n]
        sums[column] = total


@Kernel
def max_pool_grad(
    line_function: int, dx: Numbers, dy: Numbers, winner: Bytes, C: int, H: int, W: int, N: int,
    pool: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """``dx`` = each dy where its window's winner is, zeros elsewhere, line by line."""
    first, last = share(C * H, part, parts)
    for line in range(first, last):
        made = at(dx, line * W * N)
        call(line_function, (made, dy, winner, dy, 0, line // H, H, line % H, W, N, 0, pool))


@Kernel
def relu_grad(
    dx: Numbers,
    dy: Numbers,
    y: Numbers,
    sums: Numbers,
    add_up: int,
    rows: int,
    columns: int,
    part: int,
    parts: int,
) -> None:
    """``dx`` (rows, columns) = dy where y is positive; with ``add_up``, ``sums`` (rows,) gets its sum."""
    first, last = share(rows, part, parts)
    for row in range(first, last):
        start = row * columns
        relu_grad_line(at(dx, start), at(dy, start), at(y, start), columns, 0)
        if add_up != 0:
            sum_images(at(dx, start), 1, columns, at(sums, row))
