"""Functions of each number and their slopes, in formulas that LLVM vectorizes.

In float32, the exponential, the error function and log(1 + x) are polynomials or quotients of polynomials,
with an error of about one rounding. Calling the C library for each number would take ten times as long. In
float64, which serves to check results, they are such calls.
"""

# ruff: noqa: D103 - the docstrings of backends/kernels/functions.py explain the formulas

from math import erf, exp, expm1, log1p, pi, sqrt
from types import FunctionType

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from backends.cpu.compiled.jit import Numbers, as_written, inlined, share
from backends.kernels.functions import CUBIC, FUNCTIONS, TANH_SCALE

NO_FUNCTION, RECTIFY = 0, 1  # in place of a function's address; ReLU is computed without a call

F = np.float32

# exp(x) = 2^k exp(r), where k is the whole number next to x / log(2)
LOG2_E, LOG_2_HIGH, LOG_2_LOW = F(1.4426950408889634), F(0.693359375), F(-2.12194440e-4)
LARGEST_EXPONENT = F(87)  # beyond it, 2^k is no normal number
# Added to a number, this leaves its nearest whole number plus 127, the bias of exponents, in the lowest bits.
ROUNDING = F(1.5 * 2**23 + 127)


@intrinsic
def number(typing_context, value, like):
    """``value`` as a number of the type of ``like``; a plain ``value`` would widen a float32 next to it."""

    def codegen(context, builder, signature, arguments):
        return context.cast(builder, arguments[0], signature.args[0], signature.return_type)

    return like(value, like), codegen


@intrinsic
def _power_of_two(typing_context, rounded):
    """2^k as a float32 whose exponent is the lowest bits of ``rounded``."""

    def codegen(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(bits, ir.Constant(bits.type, 23)), arguments[0].type)

    return types.float32(types.float32), codegen


@inlined
def _power_parts(x):
    """(2^k, exp(r) - 1) of a float32, where exp(x) = 2^k exp(r); NaN stays NaN."""
    x = -LARGEST_EXPONENT if x < -LARGEST_EXPONENT else x
    x = LARGEST_EXPONENT if x > LARGEST_EXPONENT else x
    rounded = x * LOG2_E + ROUNDING
    k = rounded - ROUNDING
    r = (x - k * LOG_2_HIGH) - k * LOG_2_LOW
    scale = _power_of_two(rounded)
    series = F(1 / 5040)
    series = series * r + F(1 / 720)
    series = series * r + F(1 / 120)
    series = series * r + F(1 / 24)
    series = series * r + F(1 / 6)
    series = series * r + F(1 / 2)
    series = series * r + F(1)
    return scale, series * r


def _exponential_32(x):
    scale, rest = _power_parts(x)
    return scale * rest + scale


def _exponential_less_1_32(x):
    scale, rest = _power_parts(x)
    return scale * rest + (scale - F(1))


def _log_1_plus_32(x):
    """log(1 + x) for 0 <= x <= 1, as the series of 2 artanh(x / (2 + x))."""
    s = x / (F(2) + x)
    square = s * s
    series = F(1 / 15)
    series = series * square + F(1 / 13)
    series = series * square + F(1 / 11)
    series = series * square + F(1 / 9)
    series = series * square + F(1 / 7)
    series = series * square + F(1 / 5)
    series = series * square + F(1 / 3)
    series = series * square + F(1)
    return F(2) * s * series


def _error_function_32(x):
    """erf(x) as a quotient of polynomials, as in Eigen and XLA; beyond 4 it rounds to 1."""
    inside = F(4) if x > F(4) else F(-4) if x < F(-4) else x
    square = inside * inside
    above = F(-2.72614225801306e-10)
    above = above * square + F(2.77068142495902e-08)
    above = above * square + F(-2.10102402082508e-06)
    above = above * square + F(-5.69250639462346e-05)
    above = above * square + F(-7.34990630326855e-04)
    above = above * square + F(-2.95459980854025e-03)
    above = above * square + F(-1.60960333262415e-02)
    below = F(-1.45660718464996e-05)
    below = below * square + F(-2.13374055278905e-04)
    below = below * square + F(-1.68282697438203e-03)
    below = below * square + F(-7.37332916720468e-03)
    below = below * square + F(-1.42647390514189e-02)
    value = inside * above / below
    return F(1) if x >= F(4) else F(-1) if x <= F(-4) else value


def _for_each_dtype(narrow, wide):
    """A function that compiled code may call: ``narrow`` for float32, ``wide`` for float64."""

    def function(x):
        raise NotImplementedError  # for compiled code alone

    overload(function, inline="always")(lambda x: narrow if x == types.float32 else wide)
    return function


exponential = _for_each_dtype(_exponential_32, lambda x: exp(x))
exponential_less_1 = _for_each_dtype(_exponential_less_1_32, lambda x: expm1(x))
log_1_plus = _for_each_dtype(_log_1_plus_32, lambda x: log1p(x))
error_function = _for_each_dtype(_error_function_32, lambda x: erf(x))


@inlined
def relu(x, a, b):
    return number(0, x) if x < 0 else x  # NaN stays


@inlined
def relu_slope(x, a, b):
    return number(1, x) if x > 0 else number(0, x)


@inlined
def tanh(x, a, b):
    twice = exponential_less_1(x + x)
    # beyond it the quotient is 1, and in float64 the exponential would be infinite
    return number(1, x) if x > 20 else twice / (twice + number(2, x))


@inlined
def tanh_slope(x, a, b):
    value = tanh(x, a, b)
    return number(1, x) - value * value


@inlined
def leaky_relu(x, a, b):
    return x if x > 0 else a * x


@inlined
def leaky_relu_slope(x, a, b):
    return number(1, x) if x > 0 else a


@inlined
def elu(x, a, b):
    return b * (x if x > 0 else a * exponential_less_1(x))


@inlined
def elu_slope(x, a, b):
    return b if x > 0 else a * b * exponential(x)


@inlined
def gelu(x, a, b):
    return x * _normal_share(x)


@inlined
def gelu_slope(x, a, b):
    density = number(1 / sqrt(2 * pi), x) * exponential(number(-0.5, x) * x * x)
    return _normal_share(x) + x * density


@inlined
def _normal_share(x):
    half = number(0.5, x)
    return half + half * error_function(number(sqrt(0.5), x) * x)


@inlined
def gelu_tanh(x, a, b):
    scale, cubic = number(TANH_SCALE, x), number(CUBIC * TANH_SCALE, x)
    return x * sigmoid(x * (scale + cubic * x * x), a, b)


@inlined
def gelu_tanh_slope(x, a, b):
    scale, cubic = number(TANH_SCALE, x), number(CUBIC * TANH_SCALE, x)
    rise = x * (scale + number(3, x) * cubic * x * x)
    return _gate_slope(sigmoid(x * (scale + cubic * x * x), a, b), rise)


@inlined
def silu(x, a, b):
    return x * sigmoid(x, a, b)


@inlined
def silu_slope(x, a, b):
    return _gate_slope(sigmoid(x, a, b), x)


@inlined
def _gate_slope(share, rise):
    unit = number(1, rise)
    return share * (unit + rise * (unit - share))


@inlined
def sigmoid(x, a, b):
    unit = number(1, x)
    return unit / (unit + exponential(-x))


@inlined
def sigmoid_slope(x, a, b):
    share = sigmoid(x, a, b)
    return share * (number(1, x) - share)


@inlined
def softplus(x, a, b):
    scaled = a * x
    positive = scaled if scaled > 0 else number(0, x)
    value = (positive + log_1_plus(exponential(-abs(scaled)))) / a
    return x if scaled > b else value


@inlined
def softplus_slope(x, a, b):
    scaled = a * x
    share = sigmoid(scaled, a, b)
    return number(1, x) if scaled > b else share


@inlined
def hard_sigmoid(x, a, b):
    raised = x + number(3, x)
    raised = number(0, x) if raised < 0 else raised
    raised = number(6, x) if raised > 6 else raised
    return raised / number(6, x)


@inlined
def hard_sigmoid_slope(x, a, b):
    return number(1 / 6, x) if abs(x) < 3 else number(0, x)


@inlined
def hard_swish(x, a, b):
    return x * hard_sigmoid(x, a, b)


@inlined
def hard_swish_slope(x, a, b):
    inside = x / number(3, x) + number(0.5, x)
    return number(0, x) if x <= -3 else number(1, x) if x >= 3 else inside


def _activate(x: Numbers, constants: Numbers, y: Numbers, size: int, part: int, parts: int) -> None:
    first, last = share(size, part, parts)
    a, b = constants[0], constants[1]
    for i in range(first, last):
        y[i] = function(x[i], a, b)  # noqa: F821


def _activate_grad(
    dy: Numbers, x: Numbers, constants: Numbers, dx: Numbers, size: int, part: int, parts: int
) -> None:
    first, last = share(size, part, parts)
    a, b = constants[0], constants[1]
    for i in range(first, last):
        dx[i] = dy[i] * function(x[i], a, b)  # noqa: F821


def _with(loop, name):
    """The kernel of this loop over the function ``name`` of this module."""
    made = FunctionType(loop.__code__, {**globals(), "function": globals()[name]}, f"{loop.__name__}_{name}")
    made.__annotations__, made.__qualname__ = (
        loop.__annotations__,
        made.__name__,
    )  # names of files in the cache
    return as_written(made)


VALUES = {name: _with(_activate, name) for name in FUNCTIONS}
GRADIENTS = {name: _with(_activate_grad, f"{name}_slope") for name in FUNCTIONS}
