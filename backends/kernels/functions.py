"""Functions of each number of an array, and their slopes, in plain ``xp``.

A kernel set computes all of them through two kernels, ``activate`` and ``activate_grad``. None of the
functions overflows, and NaN stays NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

from backends.memory import Array, Device

CUBIC = 0.044715  # Hendrycks & Gimpel 2016, "Gaussian error linear units", section 2
TANH_SCALE = sqrt(8 / pi)  # twice that of the paper, since tanh(x) = 2 sigmoid(2 x) - 1


@dataclass(frozen=True)
class Function:
    """A function by its name in :data:`FUNCTIONS`, with its constants.

    ===============  ==========================================================  ==========================
    name             the function                                                constants
    ===============  ==========================================================  ==========================
    relu             max(x, 0)
    tanh             tanh(x)
    leaky_relu       x if x > 0, else a x                                        a: slope
    elu              b x if x > 0, else a b (exp(x) - 1)                         a: alpha, b: scale
    gelu             x P(normal < x) = x (1 + erf(x / sqrt(2))) / 2
    gelu_tanh        x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    silu             x sigmoid(x)
    sigmoid          1 / (1 + exp(-x))
    softplus         x if a x > b, else log(1 + exp(a x)) / a                    a: beta, b: threshold
    hard_sigmoid     min(max(x + 3, 0), 6) / 6
    hard_swish       x min(max(x + 3, 0), 6) / 6
    ===============  ==========================================================  ==========================
    """

    name: str
    a: float = 0.0
    b: float = 0.0

    @property
    def keeps_slope(self) -> bool:
        """Whether the slope at f(x) is that at x, so that gradients can be computed from the output."""
        return self.name == "relu" or (self.name == "leaky_relu" and self.a > 0)


RELU = Function("relu")


class Formulas:
    """The functions and slopes for arrays of one shape; each is written to ``out``.

    ``work`` and ``more`` have the shape and dtype of ``out``; ``mask`` has booleans.
    """

    def __init__(self, device: Device, function: Function, work: Array, more: Array, mask: Array) -> None:
        self.xp = device.xp
        self.device = device
        self.a, self.b = function.a, function.b
        self.work, self.more, self.mask = work, more, mask

    def relu(self, x: Array, out: Array) -> None:
        """``out`` = max(x, 0)."""
        self._maximum(x, out=out)

    def relu_slope(self, x: Array, out: Array) -> None:
        """``out`` = 1 if x > 0, else 0."""
        out.fill(0)
        self._set(self.xp.greater, x, 0, 1, out)

    def tanh(self, x: Array, out: Array) -> None:
        """``out`` = tanh(x)."""
        self.xp.tanh(x, out=out)

    def tanh_slope(self, x: Array, out: Array) -> None:
        """``out`` = 1 - tanh(x)^2."""
        self.xp.tanh(x, out=out)
        self.xp.multiply(out, out, out=out)
        self.xp.subtract(1, out, out=out)

    def leaky_relu(self, x: Array, out: Array) -> None:
        """``out`` = max(x, 0) + a min(x, 0)."""
        self._minimum(x, out=self.work)
        self.xp.multiply(self.work, self.a, out=self.work)
        self._maximum(x, out=out)
        self.xp.add(out, self.work, out=out)

    def leaky_relu_slope(self, x: Array, out: Array) -> None:
        """``out`` = 1 if x > 0, else a."""
        out.fill(self.a)
        self._set(self.xp.greater, x, 0, 1, out)

    def elu(self, x: Array, out: Array) -> None:
        """``out`` = b max(x, 0) + a b (exp(min(x, 0)) - 1)."""
        self._minimum(x, out=self.work)
        self.xp.expm1(self.work, out=self.work)
        self.xp.multiply(self.work, self.a, out=self.work)
        self._maximum(x, out=out)
        self.xp.add(out, self.work, out=out)
        self.xp.multiply(out, self.b, out=out)

    def elu_slope(self, x: Array, out: Array) -> None:
        """``out`` = b if x > 0, else a b exp(x)."""
        self._minimum(x, out=out)
        self.xp.exp(out, out=out)
        self.xp.multiply(out, self.a * self.b, out=out)
        self._set(self.xp.greater, x, 0, self.b, out)

    def gelu(self, x: Array, out: Array) -> None:
        """``out`` = x P(normal < x)."""
        self._normal_share(x, out)
        self.xp.multiply(out, x, out=out)

    def gelu_slope(self, x: Array, out: Array) -> None:
        """``out`` = P(normal < x) + x p(x), where p is the density."""
        self.xp.multiply(x, x, out=self.work)
        self.xp.multiply(self.work, -0.5, out=self.work)
        self.xp.exp(self.work, out=self.work)
        self.xp.multiply(self.work, 1 / sqrt(2 * pi), out=self.work)
        self.xp.multiply(self.work, x, out=self.work)
        self._normal_share(x, out)
        self.xp.add(out, self.work, out=out)

    def gelu_tanh(self, x: Array, out: Array) -> None:
        """``out`` = x sigmoid(u), where u = sqrt(8 / pi) (x + 0.044715 x^3)."""
        self._gelu_argument(x, out)
        self.sigmoid(out, out)
        self.xp.multiply(out, x, out=out)

    def gelu_tanh_slope(self, x: Array, out: Array) -> None:
        """``out`` = s (1 + x u' (1 - s)), where s = sigmoid(u)."""
        self._gelu_argument(x, out)
        self.sigmoid(out, out)
        self.xp.multiply(x, x, out=self.more)
        self.xp.multiply(self.more, 3 * CUBIC * TANH_SCALE, out=self.more)
        self.xp.add(self.more, TANH_SCALE, out=self.more)
        self.xp.multiply(self.more, x, out=self.more)
        self._gate_slope(self.more, out)

    def silu(self, x: Array, out: Array) -> None:
        """``out`` = x sigmoid(x)."""
        self.sigmoid(x, out)
        self.xp.multiply(out, x, out=out)

    def silu_slope(self, x: Array, out: Array) -> None:
        """``out`` = s (1 + x (1 - s)), where s = sigmoid(x)."""
        self.sigmoid(x, out)
        self._gate_slope(x, out)

    def sigmoid(self, x: Array, out: Array) -> None:
        """``out`` = exp(min(x, 0)) / (1 + exp(-|x|)); ``out`` may be ``x``."""
        self._decay(x, self.work)
        self.xp.add(self.work, 1, out=self.work)
        self._minimum(x, out=out)
        self.xp.exp(out, out=out)
        self.xp.divide(out, self.work, out=out)

    def sigmoid_slope(self, x: Array, out: Array) -> None:
        """``out`` = s (1 - s), where s = sigmoid(x)."""
        self.sigmoid(x, out)
        self.xp.multiply(out, out, out=self.work)
        self.xp.subtract(out, self.work, out=out)

    def softplus(self, x: Array, out: Array) -> None:
        """``out`` = (max(a x, 0) + log(1 + exp(-|a x|))) / a; x if a x > b."""
        self.xp.multiply(x, self.a, out=out)
        self.xp.greater(out, self.b, out=self.mask)
        self._decay(out, self.work)
        self.xp.log1p(self.work, out=self.work)
        self._maximum(out, out=out)
        self.xp.add(out, self.work, out=out)
        self.xp.divide(out, self.a, out=out)
        self.xp.copyto(out, x, where=self.mask)

    def softplus_slope(self, x: Array, out: Array) -> None:
        """``out`` = sigmoid(a x); 1 if a x > b."""
        self.xp.multiply(x, self.a, out=out)
        self.xp.greater(out, self.b, out=self.mask)
        self.sigmoid(out, out)
        self.xp.copyto(out, 1, where=self.mask)

    def hard_sigmoid(self, x: Array, out: Array) -> None:
        """``out`` = min(max(x + 3, 0), 6) / 6."""
        self.xp.add(x, 3, out=out)
        self.xp.clip(out, 0, 6, out=out)
        self.xp.divide(out, 6, out=out)

    def hard_sigmoid_slope(self, x: Array, out: Array) -> None:
        """``out`` = 1/6 if -3 < x < 3, else 0."""
        out.fill(0)
        self.xp.absolute(x, out=self.work)
        self._set(self.xp.less, self.work, 3, 1 / 6, out)

    def hard_swish(self, x: Array, out: Array) -> None:
        """``out`` = x hard_sigmoid(x)."""
        self.hard_sigmoid(x, out)
        self.xp.multiply(out, x, out=out)

    def hard_swish_slope(self, x: Array, out: Array) -> None:
        """``out`` = 0 if x <= -3, 1 if x >= 3, else x / 3 + 1/2."""
        self.xp.divide(x, 3, out=out)
        self.xp.add(out, 0.5, out=out)
        self._set(self.xp.less_equal, x, -3, 0, out)
        self._set(self.xp.greater_equal, x, 3, 1, out)

    def _maximum(self, x: Array, out: Array) -> None:
        self.xp.clip(x, 0, self.xp.inf, out=out)  # NumPy's maximum of an array and a number is slower

    def _minimum(self, x: Array, out: Array) -> None:
        self.xp.clip(x, -self.xp.inf, 0, out=out)

    def _decay(self, x: Array, out: Array) -> None:
        """``out`` = exp(-|x|)."""
        self.xp.absolute(x, out=out)
        self.xp.negative(out, out=out)
        self.xp.exp(out, out=out)

    def _set(self, compare: Callable[..., Array], x: Array, limit: float, value: float, out: Array) -> None:
        """``out`` = ``value`` where ``x`` compares so with ``limit``."""
        compare(x, limit, out=self.mask)
        self.xp.copyto(out, value, where=self.mask)

    def _normal_share(self, x: Array, out: Array) -> None:
        """``out`` = (1 + erf(x / sqrt(2))) / 2."""
        self.xp.multiply(x, sqrt(0.5), out=out)
        self.device.special.erf(out, out=out)
        self.xp.add(out, 1, out=out)
        self.xp.multiply(out, 0.5, out=out)

    def _gelu_argument(self, x: Array, out: Array) -> None:
        """``out`` = sqrt(8 / pi) (x + 0.044715 x^3)."""
        self.xp.multiply(x, x, out=out)
        self.xp.multiply(out, CUBIC * TANH_SCALE, out=out)
        self.xp.add(out, TANH_SCALE, out=out)
        self.xp.multiply(out, x, out=out)

    def _gate_slope(self, rise: Array, out: Array) -> None:
        """``out`` = s (1 + rise (1 - s)) for s in ``out``: the slope of x s, where rise = x u'."""
        self.xp.subtract(1, out, out=self.work)
        self.xp.multiply(self.work, rise, out=self.work)
        self.xp.add(self.work, 1, out=self.work)
        self.xp.multiply(out, self.work, out=out)


# in the order in which functions.cuh numbers them
FUNCTIONS = (
    "relu", "tanh", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "sigmoid", "softplus", "hard_sigmoid",
    "hard_swish",
)  # fmt: skip
