"""Activations: a function of each number, and softmax."""

from collections.abc import Callable

from cnn.layers.layer import Array, Layer
from cnn.support.arguments import function, shown
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

    def __init__(self) -> None:
        """Take no arguments."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.relu(x, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.relu_grad(dy, self._y, out)


class Tanh(Activation):
    """``y = tanh(x)``, without overflow at either end; ``dx = dy (1 - y^2)``."""

    def __init__(self) -> None:
        """Take no arguments."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.tanh(x, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.tanh_grad(dy, self._y, out)


class Softmax(Activation):
    """Probabilities along the first axis: ``y = exp(x - max x) / sum exp(x - max x)``.

    ``dx = y (dy - sum(y dy))``: the product with the Jacobian without the matrix. For training,
    CrossEntropy on the numbers before a softmax is more exact.
    """

    gives_probabilities = True

    def __init__(self) -> None:
        """Take no arguments."""

    def function(self, x: Array, out: Array) -> None:
        self.backend.kernels.softmax(x, out)

    def gradient(self, dy: Array, out: Array) -> None:
        self.backend.kernels.softmax_grad(dy, self._y, out)
