"""Matrix products for all layouts that layers use, reduced to the two kinds of tiles."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from backends.cpu.compiled import products
from backends.cpu.compiled.jit import MULTIPLICATIONS, thread_count
from backends.cpu.compiled.products import inner_product, lanes, outer_product
from backends.memory import Array

TURNED = 1 << 15  # numbers of x.T that are transposed at a time; they stay in the L2 cache

Scratch = Callable[..., list[Array]]


def matmul(a: Array, b: Array, out: Array, accumulate: bool, scratch: Scratch) -> bool:
    """``out = a @ b`` or ``out += a @ b``; -> False, without computing, for layouts that no layer uses.

    ``scratch(dtype, *sizes)`` returns scratch vectors.
    """
    dtypes = {array.dtype for array in (a, b, out)}
    if len(dtypes) > 1 or out.dtype not in (np.float32, np.float64) or 0 in (a.size, out.size):
        return False
    n, out_column = b.shape[1], _steps(out)[1]
    if n >= lanes(out.dtype) and out_column == 1:
        return _wide(a, b, out, accumulate, scratch)
    if _steps(a)[1] == 1:
        return _narrow(a, b, out, accumulate, scratch)
    return _narrow_of_columns(a, b, out, accumulate, scratch)


def _wide(a: Array, b: Array, out: Array, accumulate: bool, scratch: Scratch) -> bool:
    """``out`` has rows of at least a vector: they are sums of rows of ``b``."""
    (m, k), n = a.shape, b.shape[1]
    outer, vector, parts = outer_product.address(out.dtype), lanes(out.dtype), _threads(m, k, n)
    (b_row, b_column), (out_row, _) = _steps(b), _steps(out)
    if b_column != 1 and (b_row != 1 or b_column != k):
        return False
    if b_column != 1:  # x.T, which is transposed a few rows at a time
        at_once = max(vector, min(96, TURNED // k // vector * vector))
        (turned,) = scratch(out.dtype, parts * k * at_once)
        operands = (b, _multiples(k, at_once), a, *_steps(a), m, k, n, int(accumulate), vector)
        products.multiply_turned(out.dtype, (outer, turned, at_once, out, out_row, *operands), parts)
        return True
    operands = (b, _multiples(k, b_row), a, *_steps(a), m, k, n)
    if parts > 1 and k > 4 * max(m, n) and not accumulate and out_row == n:  # by depth
        (shares,) = scratch(out.dtype, parts * m * n)
        products.multiply_by_depth(out.dtype, (outer, shares, *operands, vector), parts)
        products.add_shares(out.dtype, (shares, parts, out, m * n))
    else:
        products.multiply(out.dtype, (outer, out, out_row, *operands, int(accumulate), vector), parts)
    return True


def _narrow(a: Array, b: Array, out: Array, accumulate: bool, scratch: Scratch) -> bool:
    """``out`` has few columns: each element is a sum along a row of ``a``."""
    (m, k), n = a.shape, b.shape[1]
    b_row, b_column = _steps(b)
    if b_row != 1:
        if b_column != 1 or b_row != n:
            return False
        (columns,) = scratch(out.dtype, k * n)
        products.transpose(out.dtype, (b, columns, k, n, k, lanes(out.dtype)))
        b, b_column = columns, k
    operands = (a, _steps(a)[0], b, _multiples(n, b_column), m, k, n, int(accumulate))
    inner = inner_product.address(out.dtype)
    products.multiply_transposed(out.dtype, (inner, out, *_steps(out), *operands), _threads(m, k, n))
    return True


def _narrow_of_columns(a: Array, b: Array, out: Array, accumulate: bool, scratch: Scratch) -> bool:
    """``out`` has few columns, ``a`` is w.T: ``out.T = b.T @ w``."""
    (m, k), n = a.shape, b.shape[1]
    (a_row, a_column), (b_row, b_column) = _steps(a), _steps(b)
    if a_row != 1 or accumulate or _steps(out) != (n, 1):
        return False
    outer, vector, parts = outer_product.address(out.dtype), lanes(out.dtype), _threads(m, k, n)
    shares, turned = scratch(out.dtype, parts * m * n, m * n)
    operands = (a, _multiples(k, a_column), b, b_column, b_row, n, k, m, vector)
    products.multiply_by_depth(out.dtype, (outer, shares, *operands), parts)
    products.add_shares(out.dtype, (shares, parts, out if n == 1 else turned, m * n))
    if n > 1:
        products.transpose(out.dtype, (turned, out, n, m, n, vector))
    return True


def _threads(m: int, k: int, n: int) -> int:
    return thread_count(max(m * k, k * n, m * n, m * k * n // MULTIPLICATIONS))


def _steps(matrix: Array) -> tuple[int, int]:
    """The strides between rows and columns in elements, also for axes of length 1."""
    (row, column), (rows, columns) = matrix.strides, matrix.shape
    size: Any = matrix.itemsize
    return (row // size if rows > 1 else columns), (column // size if columns > 1 else 1)


@lru_cache(maxsize=256)
def _multiples(count: int, step: int) -> Array:
    return np.arange(count, dtype=np.intp) * step
