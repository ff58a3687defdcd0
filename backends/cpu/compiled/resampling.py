"""Resampling of rows and columns by weighted sums, batch last: average pooling, padding, enlarging.

A sampling is an array of starts, one for each position of the output and one more, followed by the positions
of the input; the weights are another array. The parts are lines of the output.
"""

from backends.cpu.compiled.jit import Indices, Kernel, Numbers, inlined, share
from backends.cpu.compiled.registers import at, zero


@inlined
def _weighted_sum(out, x, step, count, first, last, positions, weights):
    """``out`` (count,) = the sum of weights[t] * x[positions[t] * step:] for t from ``first`` to ``last``."""
    if first == last:
        for n in range(count):
            out[n] = zero(out)
    for t in range(first, last):
        seen, weight = at(x, positions[t] * step), weights[t]
        if t == first:
            for n in range(count):
                out[n] = weight * seen[n]
        else:
            for n in range(count):
                out[n] += weight * seen[n]


@Kernel
def resample(
    y: Numbers, x: Numbers, scratch: Numbers, rows: Indices, row_weights: Numbers, columns: Indices,
    column_weights: Numbers, C: int, H: int, W: int, N: int, OH: int, OW: int, part: int, parts: int,
) -> None:  # fmt: skip
    """``y`` (C, OH, OW, N) = x (C, H, W, N), resampled; ``scratch`` has space for a line of x per part."""
    line = at(scratch, part * W * N)
    first, last = share(C * OH, part, parts)
    for task in range(first, last):
        row = task % OH
        source = at(x, task // OH * H * W * N)
        _weighted_sum(line, source, W * N, W * N, rows[row], rows[row + 1], at(rows, OH + 1), row_weights)
        for column in range(OW):
            target = at(y, (task * OW + column) * N)
            _weighted_sum(target, line, N, N, columns[column], columns[column + 1], at(columns, OW + 1),
                          column_weights)  # fmt: skip
