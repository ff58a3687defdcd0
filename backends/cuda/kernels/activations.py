"""Activations and their gradients."""

from backends.cuda.kernels.launching import Launching
from backends.cuda.launch import THREADS
from backends.kernels.activations import PortableActivationKernels
from backends.kernels.covering import covering
from backends.kernels.functions import FUNCTIONS, Function
from backends.memory import Array


class CompiledActivationKernels(Launching, PortableActivationKernels):
    """Activations and their gradients."""

    @covering()
    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        self._launch.threads(
            "add_bias", y.dtype, y.size, (y, bias, int(rectify), y.size // bias.size, y.size)
        )

    @covering()
    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        if sums is None:
            self._launch.threads("relu_grad", dy.dtype, out.size, (dy, y, out, out.size))
        else:
            arguments = (dy, y, out, sums, out.size // len(out))
            self._launch.grid("relu_grad_rows", dy.dtype, (len(out),), (THREADS,), arguments, 8 * THREADS)

    @covering()
    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        self._launch.threads("tanh_grad", dy.dtype, out.size, (dy, y, out, out.size))

    @covering()
    def activate(self, x: Array, formula: Function, out: Array) -> None:
        self._launch.threads("activate", x.dtype, x.size, (x, out, *_numbered(formula), x.size))

    @covering()
    def activate_grad(self, dy: Array, x: Array, formula: Function, out: Array) -> None:
        arguments = (dy, x, out, *_numbered(formula), x.size)
        self._launch.threads("activate_grad", x.dtype, x.size, arguments)

    @covering()
    def softmax(self, x: Array, out: Array) -> None:
        F, N = len(x), x.size // len(x)
        self._launch.threads("softmax", x.dtype, N, (x, out, F, N))

    @covering()
    def softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        F, N = len(y), y.size // len(y)
        self._launch.threads("softmax_grad", y.dtype, N, (dy, y, out, F, N))

    @covering()
    def log_softmax(self, x: Array, out: Array) -> None:
        F, N = len(x), x.size // len(x)
        self._launch.threads("log_softmax", x.dtype, N, (x, out, F, N))

    @covering()
    def log_softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        F, N = len(y), y.size // len(y)
        self._launch.threads("log_softmax_grad", y.dtype, N, (dy, y, out, F, N))


def _numbered(formula: Function) -> tuple[int, float, float]:
    """The number of a function in functions.cuh, and its constants."""
    return FUNCTIONS.index(formula.name), float(formula.a), float(formula.b)
