"""Direct convolution, line by line, batch last; alone, or in one pass with what follows it.

Each output line (all columns and images of one row of one channel) is a product of the weights with
shifted lines of the input: nothing is copied into columns (Georganas et al. 2018, "Anatomy of
high-performance deep learning convolutions on SIMD architectures"). Rows outside the input are skipped in
the product. The input's columns are arranged so that each tap reads neighbours: with a border of zeros on
the left and right and, with a stride, every stride-th column next to each other. Weights are (O, KH, C, KW),
so that the skipped weights are at the ends.

The gradient of the input is a convolution of the output's gradient for each phase: the rows and columns of
the input that have the same remainder modulo the stride see the same taps of the kernel.

``shape`` contains the sizes in the order of :class:`ConvolutionSizes`. The parts are output lines. Each
element is computed in one part, in an order that does not depend on the number of parts. Only the gradient
of the weight is the sum of a share of each part.
"""

from typing import NamedTuple

from backends.cpu.compiled.functions import RECTIFY
from backends.cpu.compiled.jit import Bytes, Indices, Kernel, Numbers, inlined, share
from backends.cpu.compiled.pooling import pool_quads, sum_images
from backends.cpu.compiled.registers import at, call, zero

BLOCK = 2048  # numbers to which a function is applied at a time; they stay in the first cache


class ConvolutionSizes(NamedTuple):
    """The sizes of a convolution; C and O are channels per group, W is the width of the arranged input."""

    groups: int
    C: int
    H: int
    W: int
    N: int
    O: int
    OH: int
    OW: int
    KH: int
    KW: int
    stride_h: int
    dilation_h: int
    padding_h: int


class GradientSizes(NamedTuple):
    """The sizes of the input's gradient; C and O are channels per group, OW includes the border."""

    groups: int
    C: int
    H: int
    W: int
    N: int
    O: int
    OH: int
    OW: int
    KH: int
    KW: int
    stride_h: int
    stride_w: int
    step_h: int  # rows of the output between the taps of a phase
    padding_h: int


@inlined
def _rows_inside(row, shape):
    """(the input's row under the kernel's first row, the kernel's first row inside, its first beyond)."""
    H, KH, stride_h, dilation_h, padding_h = shape[2], shape[8], shape[10], shape[11], shape[12]
    top = row * stride_h - padding_h
    first = min(KH, max(0, -(top // dilation_h)))
    return top, first, max(first, min(KH, (H - 1 - top) // dilation_h + 1))


@inlined
def _line(outer, y, y_row, x, w, offsets, shape, group, row, lanes):
    """Output line ``row`` of all channels of a group; that of channel o is written to ``y + o * y_row``."""
    C, H, W, N, O, OW = shape[1], shape[2], shape[3], shape[4], shape[5], shape[7]
    KH, KW = shape[8], shape[9]
    top, first, beyond = _rows_inside(row, shape)
    skipped, depth = first * C * KW, (beyond - first) * C * KW
    x_top = at(x, (group * C * H + top) * W * N)
    w_first = at(w, group * O * KH * C * KW + skipped)
    call(outer, (y, y_row, x_top, at(offsets, skipped), w_first, KH * C * KW, 1, O, depth, OW * N, 0, lanes))


@inlined
def finish_line(y, y_row, O, OW, N, bias, b_channel, b_column, rectify):
    """Add the bias to a line of all channels, and apply ReLU."""
    if N == 1 and b_column == 1:
        for o in range(O):
            run, own = at(y, o * y_row), at(bias, o * b_channel)
            for column in range(OW):
                value = run[column] + own[column]
                run[column] = zero(y) if (rectify != 0) & (value < 0) else value
        return
    for o in range(O):
        pieces, width = OW, N
        if b_column == 0:
            pieces, width = 1, OW * N
        for piece in range(pieces):
            add = bias[o * b_channel + piece * b_column]
            run = at(y, o * y_row + piece * width)
            if rectify != 0:
                for n in range(width):
                    value = run[n] + add
                    run[n] = zero(y) if value < 0 else value  # NaN stays
            else:
                for n in range(width):
                    run[n] += add


@inlined
def _activate_line(y, y_row, O, width, function, constants, block):
    """Apply a function to a line of all channels."""
    for o in range(O):
        for begin in range(0, width, BLOCK):
            run, count = at(y, o * y_row + begin), min(width - begin, BLOCK)
            for n in range(count):
                block[n] = run[n]
            call(function, (block, constants, run, count, 0, 1))


@Kernel
def convolve(
    outer: int, y: Numbers, x: Numbers, w: Numbers, offsets: Indices, shape: Indices, bias: Numbers,
    b_channel: int, b_row: int, b_column: int, finish: int, function: int, constants: Numbers,
    scratch: Numbers, lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = the function of x * w, or with ``finish`` of x * w + bias.

    ``function`` is the address of one of ``functions.VALUES``, NO_FUNCTION or RECTIFY. ``scratch`` has a
    block for each part.
    """
    groups, N, O, OH, OW = shape[0], shape[4], shape[5], shape[6], shape[7]
    line = OW * N
    first, last = share(groups * OH, part, parts)
    for task in range(first, last):
        group, row = task // OH, task % OH
        y_line = at(y, (group * O * OH + row) * line)
        _line(outer, y_line, OH * line, x, w, offsets, shape, group, row, lanes)
        if finish != 0:
            b = at(bias, group * O * b_channel + row * b_row)
            finish_line(y_line, OH * line, O, OW, N, b, b_channel, b_column, int(function == RECTIFY))
        if function > RECTIFY:
            _activate_line(y_line, OH * line, O, line, function, constants, at(scratch, part * BLOCK))


@Kernel
def convolve_pool(
    outer: int, line_function: int, y: Numbers, winner: Bytes, keep: int, scratch: Numbers, x: Numbers,
    w: Numbers, offsets: Indices, shape: Indices, bias: Numbers, b_channel: int, b_row: int, b_column: int,
    rectify: int, pool: Indices, rows: int, lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` = the max pooling of x * w + bias, or with ``rectify`` of ReLU of that.

    ``winner`` is written if ``keep``; ``line_function`` is explained in ``max_pool``. The convolution is
    computed for ``rows`` rows of ``y`` at a time in ``scratch``, which has space for this for each part.
    """
    groups, N, O, OH, OW = shape[0], shape[4], shape[5], shape[6], shape[7]
    PH, PW, KH, stride_h, padding_h, dilation_h = pool[0], pool[1], pool[2], pool[4], pool[6], pool[8]
    line = OW * N
    lines = (rows - 1) * stride_h + (KH - 1) * dilation_h + 1  # of the convolution, for so many pooled rows
    convolved = at(scratch, part * groups * O * lines * line)
    first, last = share(PH, part, parts)
    for pooled in range(first, last, rows):
        top = pooled * stride_h - padding_h
        bottom = (min(last, pooled + rows) - 1) * stride_h - padding_h + (KH - 1) * dilation_h
        for row in range(max(0, top), min(OH, bottom + 1)):
            for group in range(groups):
                y_line = at(convolved, (group * O * lines + row - top) * line)
                _line(outer, y_line, lines * line, x, w, offsets, shape, group, row, lanes)
                if line_function != 0:
                    b = at(bias, group * O * b_channel + row * b_row)
                    finish_line(y_line, lines * line, O, OW, N, b, b_channel, b_column, rectify)
        for channel in range(groups * O):
            for row in range(pooled, min(last, pooled + rows)):
                source = at(convolved, (channel * lines - top) * line)  # where the channel's row 0 would lie
                target = (channel * PH + row) * PW * N
                if line_function == 0:
                    b = at(bias, channel * b_channel + stride_h * row * b_row)
                    upper = at(source, stride_h * row * line)
                    pool_quads(at(y, target), at(winner, target), keep, upper, line, PW, pool[5], N,
                               rectify, b, b_row, b_column)  # fmt: skip
                else:
                    call(line_function, (at(y, target), at(winner, target), keep, source, line, OH, OW, N,
                                         pool, row))  # fmt: skip


@Kernel
def convolution_grad_weight(
    inner: int, shares: Numbers, dy: Numbers, dy_border: int, kept: int, x: Numbers, offsets: Indices,
    shape: Indices, at_once: int, line_function: int, dz: Numbers, z: Numbers, winner: Bytes,
    rectified: int, sums: Numbers, add_up: int, pool: Indices, part: int, parts: int,
) -> None:  # fmt: skip
    """Each part's share of the sum over all positions of dy * x: ``shares`` is (parts, O, KH, C, KW).

    ``dy`` has a border of so many columns on its left and right. ``at_once`` elements of it are processed
    together; they stay in the L2 cache while all lines of x are combined with them. If ReLU, max pooling or
    both came after the convolution, dy is first computed line by line from their output ``z`` and its
    gradient, by the C function with the address ``line_function``, which is 0 otherwise; with ``add_up``,
    ``sums`` (O, OH, OW) gets its sum over the batch. dy is then (O, OH, OW, N) or, if it is not needed later,
    (parts, O, kept, OW, N): a few lines that are reused.
    """
    groups, C, H, W, N, O = shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]
    OH, OW, KH, KW, stride_h = shape[6], shape[7], shape[8], shape[9], shape[10]
    depth = KH * C * KW
    dw = at(shares, part * groups * O * depth)
    for i in range(groups * O * depth):
        dw[i] = zero(dw)
    dy_line = (OW + 2 * dy_border) * N
    dy_channel = kept * dy_line
    if kept < OH:
        dy = at(dy, part * groups * O * dy_channel)
    length = OW * N
    first, last = share(OH, part, parts)
    for group in range(groups):
        row = first
        while row < last:
            top, inside, beyond = _rows_inside(row, shape)
            rows = 1  # short lines are combined if they use the same rows of the kernel
            while row + rows < last and (rows + 1) * length <= at_once:
                _, next_inside, next_beyond = _rows_inside(row + rows, shape)
                if next_inside != inside or next_beyond != beyond:
                    break
                rows += 1
            base = row if kept == OH else 0  # where the first of these rows lies in dy
            if line_function != 0:
                for channel in range(group * O, (group + 1) * O):
                    for r in range(row, row + rows):
                        task = channel * OH + r
                        made = at(dy, channel * dy_channel + (base + r - row) * dy_line)
                        call(line_function, (made, dz, winner, z, rectified, channel, OH, r, OW, N,
                                             dy_border, pool))  # fmt: skip
                        if add_up != 0:
                            sum_images(at(made, dy_border * N), OW, N, at(sums, task * OW))
            skipped = inside * C * KW
            dy_row = at(dy, group * O * dy_channel + base * dy_line + dy_border * N)
            x_top = at(x, (group * C * H + top) * W * N)
            for start in range(0, length, at_once):
                call(inner, (at(dw, group * O * depth + skipped), depth, 1, at(dy_row, start), dy_channel,
                             dy_line, at(x_top, start), stride_h * W * N, at(offsets, skipped), rows,
                             min(at_once, length - start), O, (beyond - inside) * C * KW))  # fmt: skip
            row += rows


@Kernel
def add_weight_shares(
    shares: Numbers, count: int, dw: Numbers, O: int, C: int, KH: int, KW: int, part: int, parts: int
) -> None:
    """``dw`` (O, C, KH, KW) = the sum over the first axis of ``shares`` (count, O, KH, C, KW)."""
    first, last = share(O, part, parts)
    size = O * KH * C * KW
    for o in range(first, last):
        for c in range(C):
            for i in range(KH):
                for j in range(KW):
                    place = ((o * KH + i) * C + c) * KW + j
                    total = shares[place]
                    for k in range(1, count):
                        total += shares[k * size + place]
                    dw[((o * C + c) * KH + i) * KW + j] = total


@Kernel
def arrange_columns(
    x: Numbers, out: Numbers, lines: int, W: int, N: int, stride: int, padding: int, phases: int, width: int,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``out`` (lines, phases, width, N): column v of phase q is column ``v * stride + q - padding`` of x."""
    first, last = share(lines * phases, part, parts)
    for task in range(first, last):
        source, target = at(x, task // phases * W * N), at(out, task * width * N)
        offset = task % phases - padding  # the column that column 0 would be
        begin = min(width, max(0, -(offset // stride)))
        end = max(begin, min(width, (W - 1 - offset) // stride + 1))
        for n in range(begin * N):
            target[n] = zero(out)
        for n in range(end * N, width * N):
            target[n] = zero(out)
        if N == 1:
            for v in range(begin, end):
                target[v] = source[v * stride + offset]
        else:
            runs, length = (1, (end - begin) * N) if stride == 1 else (end - begin, N)
            for run in range(runs):
                given = at(source, ((begin + run) * stride + offset) * N)
                made = at(target, (begin + run) * N)
                for n in range(length):
                    made[n] = given[n]


@Kernel
def by_kernel_rows(w: Numbers, out: Numbers, O: int, C: int, KH: int, KW: int, part: int, parts: int) -> None:
    """(O, C, KH, KW) -> (O, KH, C, KW)."""
    first, last = share(O, part, parts)
    for o in range(first, last):
        for c in range(C):
            for i in range(KH):
                for j in range(KW):
                    out[((o * KH + i) * C + c) * KW + j] = w[((o * C + c) * KH + i) * KW + j]


@inlined
def _phases(tables, shape):
    """The parts of a table of phases, which ``input_gradient`` in the kernels' layout explains."""
    stride_h, stride_w, KH = shape[10], shape[11], shape[8]
    columns = at(tables, 2 * stride_h)
    starts = at(columns, 4 * stride_w)
    row_taps = at(starts, stride_h * stride_w)
    return tables, columns, starts, row_taps, at(row_taps, 2 * KH)


@Kernel
def turn(w: Numbers, out: Numbers, tables: Indices, shape: Indices, part: int, parts: int) -> None:
    """The flipped weights (G, O, C, KH, KW) for the input gradient: (C, rows, O, columns) for each phase."""
    groups, C, O, KH, KW, stride_w = shape[0], shape[1], shape[5], shape[8], shape[9], shape[11]
    rows, columns, starts, row_taps, column_taps = _phases(tables, shape)
    first, last = share(groups * O, part, parts)
    for task in range(first, last):
        group, o = task // O, task % O
        own = at(out, group * O * C * KH * KW)
        for i in range(KH):
            below, place = row_taps[2 * i], row_taps[2 * i + 1]
            taps, start = rows[2 * below], below * stride_w
            for j in range(KW):
                across, column = column_taps[2 * j], column_taps[2 * j + 1]
                count = columns[4 * across]
                made = at(own, C * starts[start + across] + (place * O + o) * count + column)
                for c in range(C):
                    made[c * taps * O * count] = w[((task * C + c) * KH + i) * KW + j]


@Kernel
def convolution_grad_input(
    outer: int, dx: Numbers, scratch: Numbers, size: int, dy: Numbers, w: Numbers, offsets: Indices,
    tables: Indices, shape: Indices, lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``dx`` = the gradient of the input, for ``dy`` with its border and turned weights.

    With a stride across, the columns of a phase are computed next to each other in ``scratch``, which has
    ``size`` numbers for each part. The parts are lines of dx.
    """
    groups, C, H, W, N, O, OH, OW = (
        shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7]
    )  # fmt: skip
    KH, KW, stride_h, stride_w, step_h, padding_h = (
        shape[8], shape[9], shape[10], shape[11], shape[12], shape[13]
    )  # fmt: skip
    rows, columns, starts, _, _ = _phases(tables, shape)
    computed = at(scratch, part * size)
    first_line, last_line = share(groups * H, part, parts)
    for task in range(first_line, last_line):
        group, h = task // H, task % H
        below = (h + padding_h) % stride_h
        taps = rows[2 * below]
        top = (h + padding_h) // stride_h - rows[2 * below + 1]  # the row of dy under the first tap
        first = min(taps, max(0, -(top // step_h)))
        beyond = max(first, min(taps, (OH - 1 - top) // step_h + 1))
        line = at(dx, (group * C * H + h) * W * N)
        for across in range(stride_w):
            count, left = columns[4 * across], columns[4 * across + 1]
            column, width = columns[4 * across + 2], columns[4 * across + 3]
            each = O * count
            start, depth = starts[below * stride_w + across], (beyond - first) * each
            target, channel = (line, H * W * N) if stride_w == 1 else (computed, width * N)
            if depth > 0 or stride_w == 1:
                call(outer, (target, channel, at(dy, ((group * O * OH + top) * OW + left) * N),
                             at(offsets, start + first * each),
                             at(w, C * (group * O * KH * KW + start) + first * each), taps * each, 1,
                             C, depth, width * N, 0, lanes))  # fmt: skip
            if stride_w > 1:
                for c in range(C):
                    for v in range(width):
                        made = at(line, (c * H * W + column + v * stride_w) * N)
                        given = at(computed, (c * width + v) * N)
                        if depth > 0:
                            for n in range(N):
                                made[n] = given[n]
                        else:
                            for n in range(N):
                                made[n] = zero(dx)
