"""Depthwise convolution: each output channel sees one input channel, and each input channel serves M of them.

There is nothing to share between channels, so a line is added up tap by tap while it stays in the L1 cache,
and the input needs no border. ``window`` contains the sizes in the order of :class:`pooling.Pool`.
"""

from backends.cpu.compiled.convolution import finish_line
from backends.cpu.compiled.jit import Indices, Kernel, Numbers, inlined, share
from backends.cpu.compiled.pooling import inside, runs_of
from backends.cpu.compiled.registers import at, call, zero


@inlined
def _add_scaled(y, y_step, x, x_step, weight, count):
    """``y[n * y_step] += weight * x[n * x_step]``."""
    if y_step == 1 and x_step == 1:
        for n in range(count):
            y[n] += weight * x[n]
    else:
        for n in range(count):
            y[n * y_step] += weight * x[n * x_step]


@Kernel
def convolve(
    outer: int, y: Numbers, x: Numbers, w: Numbers, offsets: Indices, O: int, M: int, H: int, W: int, N: int,
    window: Indices, bias: Numbers, b_channel: int, b_row: int, b_column: int, finish: int, rectify: int,
    lanes: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` (O, OH, OW, N) = x (O / M, H, W, N) * w (O, KH, KW); ``finish`` as in convolution.convolve.

    ``offsets`` are those of the taps from the first. With a stride, the columns come one after the other, so
    that the input is read in its order.
    """
    OH, OW, KH, KW, stride_h, stride_w = window[0], window[1], window[2], window[3], window[4], window[5]
    padding_h, padding_w, dilation_h, dilation_w = window[6], window[7], window[8], window[9]
    pieces, width, step = runs_of(0, OW, stride_w, N)
    at_once = OW // pieces
    first_line, last_line = share(O * OH, part, parts)
    for line in range(first_line, last_line):
        o, row = line // OH, line % OH
        top = row * stride_h - padding_h
        target, plane, weights = at(y, line * OW * N), at(x, o // M * H * W * N), at(w, o * KH * KW)
        rows_inside = top >= 0 and top + (KH - 1) * dilation_h < H
        for begin in range(0, OW, at_once):
            left = begin * stride_w - padding_w
            if pieces > 1 and rows_inside and left >= 0 and left + (KW - 1) * dilation_w < W:
                seen = at(plane, (top * W + left) * N)
                call(outer, (at(target, begin * N), 0, seen, offsets, weights, 0, 1, 1, KH * KW, N, 0, lanes))
                continue
            for n in range(width):
                target[begin * N + n] = zero(y)
            for i in range(KH):
                h = top + i * dilation_h
                if 0 <= h < H:
                    for j in range(KW):
                        first, beyond = inside(j, W, OW, stride_w, padding_w, dilation_w)
                        first, beyond = max(begin, first), min(begin + at_once, beyond)
                        seen = at(plane, (h * W + first * stride_w + j * dilation_w - padding_w) * N)
                        count = (beyond - first) * N
                        _add_scaled(at(target, first * N), 1, seen, step, weights[i * KW + j], count)
        if finish != 0:
            b = at(bias, o * b_channel + row * b_row)
            finish_line(target, OW * N, 1, OW, N, b, b_channel, b_column, rectify)


@Kernel
def grad_input(
    dx: Numbers, dy: Numbers, w: Numbers, C: int, M: int, H: int, W: int, N: int, window: Indices,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``dx`` (C, H, W, N) = the gradient of the input; each line gathers what reaches it."""
    OH, OW, KH, KW, stride_h, stride_w = window[0], window[1], window[2], window[3], window[4], window[5]
    padding_h, padding_w, dilation_h, dilation_w = window[6], window[7], window[8], window[9]
    first_line, last_line = share(C * H, part, parts)
    for line in range(first_line, last_line):
        channel, h = line // H, line % H
        target = at(dx, line * W * N)
        for n in range(W * N):
            target[n] = zero(dx)
        for i in range(KH):
            below = h + padding_h - i * dilation_h
            row = below // stride_h
            if row * stride_h == below and 0 <= row < OH:
                for o in range(channel * M, (channel + 1) * M):
                    source = at(dy, (o * OH + row) * OW * N)
                    for j in range(KW):
                        first, beyond = inside(j, W, OW, stride_w, padding_w, dilation_w)
                        runs, count, step = runs_of(first, beyond, stride_w, N)
                        weight = w[(o * KH + i) * KW + j]
                        left = first * stride_w + j * dilation_w - padding_w
                        for run in range(runs):
                            there = at(target, (left + run * stride_w) * N)
                            _add_scaled(there, step, at(source, (first + run) * N), 1, weight, count)


@Kernel
def grad_weight(
    dw: Numbers, dy: Numbers, x: Numbers, O: int, M: int, H: int, W: int, N: int, window: Indices,
    part: int, parts: int,
) -> None:  # fmt: skip
    """``dw`` (O, KH, KW) = the gradient of the weight; the parts are channels."""
    OH, OW, KH, KW, stride_h, stride_w = window[0], window[1], window[2], window[3], window[4], window[5]
    padding_h, padding_w, dilation_h, dilation_w = window[6], window[7], window[8], window[9]
    first_channel, last_channel = share(O, part, parts)
    for o in range(first_channel, last_channel):
        sums = at(dw, o * KH * KW)
        for tap in range(KH * KW):
            sums[tap] = zero(dw)
        for row in range(OH):
            gradient = at(dy, (o * OH + row) * OW * N)
            for i in range(KH):
                h = row * stride_h - padding_h + i * dilation_h
                if 0 <= h < H:
                    source = at(x, (o // M * H + h) * W * N)
                    for j in range(KW):
                        first, beyond = inside(j, W, OW, stride_w, padding_w, dilation_w)
                        runs, count, step = runs_of(first, beyond, stride_w, N)
                        left = first * stride_w + j * dilation_w - padding_w
                        total = zero(dw)
                        for run in range(runs):
                            given, seen = (
                                at(gradient, (first + run) * N),
                                at(source, (left + run * stride_w) * N),
                            )
                            if step == 1:
                                for n in range(count):
                                    total += given[n] * seen[n]
                            else:
                                for n in range(count):
                                    total += given[n] * seen[n * step]
                        sums[i * KW + j] += total
