"""Activations: a function of each number, and softmax."""

from abc import abstractmethod
from collections.abc import Callable
from math import prod

from backends.kernels.functions import Function
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.support.arguments import choice, function, number, positive, shown, size
from cnn.support.errors import ShapeError


class Activation(Layer):
    """Any elementwise function: ``y = f(x)``, ``dx = dy * f_prime(x)``.

    ``f`` and ``f_prime`` take and give arrays of the network's device, of one shape; ShapeError where they
    give another. A network with functions in it cannot be rebuilt from a file alone; load its weights with
    ``network=``.
    """

    def __init__(self, f: Callable[[Array], Array], f_prime: Callable[[Array], Array]) -> None:
        self.f = function("Activation: f", f)
        self.f_prime = function("Activation: f_prime", f_prime)

    @property
    def recordable(self) -> bool:
        return self.is_own and type(self) is not Activation  # which calls functions of the user

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.function(x, y)
        if training:
            self._x, self._y = x, y
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.gradient(dy, dx)
        return dx

    def function(self, x: Array, out: Array) -> None:
        """``out = f(x)``."""
        out[...] = self._call("f", x)

    def gradient(self, dy: Array, out: Array) -> None:
        """``out = dy * f'(x)`` for the ``x`` and ``y`` of the latest training forward."""
        self.backend.xp.multiply(dy, self._call("f_prime", self._x), out=out)

    def _call(self, name: str, x: Array) -> Array:
        """What the function of this name gives for ``x``: an array of its shape, or one number."""
        y = getattr(self, name)(x)
        if not isinstance(y, int | float) and getattr(y, "shape", None) not in ((), x.shape):
            raise ShapeError(
                f"layer {self.label}: {name} gave {shown(y)} for an array of the shape {x.shape}, "
                "expected an array of that shape"
            )
        return y


class ReLU(Activation):
    """``y = max(x, 0)``; the gradient at 0 is 0 (Nair & Hinton 2010)."""

    epilogue = "relu"
    reads_input = False

    def __init__(self) -> None:
        """Take no arguments."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.relu(x, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.relu_grad(dy, self._y, out)

    @property
    def formula(self) -> Function:
        return Function("relu")


class Tanh(Activation):
    """``y = tanh(x)``, without overflow at either end; ``dx = dy (1 - y^2)``."""

    reads_input = False

    def __init__(self) -> None:
        """Take no arguments."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.tanh(x, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.tanh_grad(dy, self._y, out)

    @property
    def formula(self) -> Function:
        return Function("tanh")


class Softmax(Activation):
    """Probabilities along the first axis: ``y = exp(x - max x) / sum exp(x - max x)``.

    ``dx = y (dy - sum(y dy))``: the product with the Jacobian without the matrix. For training,
    CrossEntropy on the numbers before a softmax is more exact.
    """

    gives_probabilities = True
    reads_input = False

    def __init__(self) -> None:
        """Take no arguments."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.softmax(x, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.softmax_grad(dy, self._y, out)


class LogSoftmax(Activation):
    """The logarithm of softmax along the first axis: ``y = x - max x - log sum exp(x - max x)``.

    ``dx = dy - exp(y) sum(dy)``. As PyTorch's LogSoftmax(dim=1).
    """

    reads_input = False

    def __init__(self) -> None:
        """Take no arguments."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.log_softmax(x, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.log_softmax_grad(dy, self._y, out)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return _number_bytes(self) * batch


class _Elementwise(Activation):
    """An activation from the table in :mod:`backends.kernels.functions`; the gradient needs ``x`` alone."""

    reads_output = False

    def __init__(self) -> None:
        """Take no arguments."""

    @property
    @abstractmethod
    def formula(self) -> Function:
        """The function, with its constants."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.activate(x, self.formula, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.activate_grad(dy, self._x, self.formula, out)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return (2 * _number_bytes(self) + prod(self.output_shape)) * batch  # and a flag for each number


class LeakyReLU(_Elementwise):
    """``y = x`` if x > 0, else ``slope * x``, as PyTorch's LeakyReLU (Maas et al. 2013).

    Raises ArgumentError unless ``slope`` is a number of at least 0.
    """

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = number("LeakyReLU: slope", slope)

    @property
    def formula(self) -> Function:
        return Function("leaky_relu", self.slope)


class ELU(_Elementwise):
    """``y = x`` if x > 0, else ``alpha * (exp(x) - 1)``, as PyTorch's ELU (Clevert et al. 2016).

    Raises ArgumentError unless ``alpha`` is a number of at least 0.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = number("ELU: alpha", alpha)

    @property
    def formula(self) -> Function:
        return Function("elu", self.alpha, 1.0)


class SELU(_Elementwise):
    """An ELU whose constants keep mean 0 and variance 1 (Klambauer et al. 2017).

    ``y = 1.0507 x`` if x > 0, else ``1.0507 * 1.6733 (exp(x) - 1)``, as PyTorch's SELU.
    """

    @property
    def formula(self) -> Function:
        return Function("elu", 1.6732632423543772848, 1.0507009873554804934)


class GELU(_Elementwise):
    """``y = x P(normal < x)``, the Gaussian error linear unit (Hendrycks & Gimpel 2016), as PyTorch's GELU.

    Parameters
    ----------
    approximate : str
        "none" for the exact function, or "tanh" for the paper's approximation with a hyperbolic tangent.

    Raises
    ------
    ArgumentError
        If ``approximate`` is neither of the two.
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = choice("GELU: approximate", approximate, ["none", "tanh"])

    @property
    def formula(self) -> Function:
        return Function("gelu" if self.approximate == "none" else "gelu_tanh")


class SiLU(_Elementwise):
    """``y = x sigmoid(x)``, also called swish, as PyTorch's SiLU (Elfwing et al. 2017)."""

    @property
    def formula(self) -> Function:
        return Function("silu")


class Sigmoid(_Elementwise):
    """``y = 1 / (1 + exp(-x))``, without overflow at either end."""

    @property
    def formula(self) -> Function:
        return Function("sigmoid")


class Softplus(_Elementwise):
    """``y = log(1 + exp(beta x)) / beta``, or ``x`` if ``beta x`` is above ``threshold``.

    As PyTorch's Softplus. Raises ArgumentError unless ``beta`` is above 0 and ``threshold`` at least 0.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = positive("Softplus: beta", beta)
        self.threshold = number("Softplus: threshold", threshold)

    @property
    def formula(self) -> Function:
        return Function("softplus", self.beta, self.threshold)


class HardSigmoid(_Elementwise):
    """``y = min(max(x + 3, 0), 6) / 6``, as PyTorch's Hardsigmoid."""

    @property
    def formula(self) -> Function:
        return Function("hard_sigmoid")


class HardSwish(_Elementwise):
    """``y = x min(max(x + 3, 0), 6) / 6``, as PyTorch's Hardswish (Howard et al. 2019)."""

    @property
    def formula(self) -> Function:
        return Function("hard_swish")


class PReLU(Layer):
    """``y = x`` if x > 0, else ``weight * x``, where the weight is learned (He et al. 2015).

    As PyTorch's PReLU, with its names.

    Parameters
    ----------
    num_parameters : int
        1 for one weight, or the number of channels for one weight for each.
    init : float
        The first value of the weight.
    trainable : bool
        Whether training changes the weight.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    ShapeError
        When built on an input with another number of channels.
    """

    reads_output = False

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, trainable: bool = True) -> None:
        self.trainable = trainable
        self.num_parameters = size("PReLU: num_parameters", num_parameters)
        self.init = number("PReLU: init", init)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        if self.num_parameters not in (1, input_shape[0]):
            raise ShapeError(
                f"layer {self.label}: num_parameters is {self.num_parameters}, expected 1 or the number of "
                f"channels, {input_shape[0]}"
            )
        self._weight = self.parameter("weight", (self.num_parameters,), self.init)
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.backend.kernels.prelu(x, self._weight.value, y)
        if training:
            self._x = x
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        dx = self.input_gradient(dy) if input_grad else None
        self.backend.kernels.prelu_grad(dy, self._x, self._weight.value, self._weight.grad, dx)
        return dx

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return _number_bytes(self) * batch + prod(self.output_shape) * trained  # and a flag for each number


def _number_bytes(layer: Layer) -> int:
    """Bytes of the numbers of one sample's output."""
    return prod(layer.output_shape) * layer.master_itemsize
