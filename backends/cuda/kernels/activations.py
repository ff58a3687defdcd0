"""Activations and their gradients."""

from backends.cuda.kernels.launching import Launching, function_arguments, parts_of_rows
from backends.cuda.launch import THREADS
from backends.kernels.activations import PortableActivationKernels
from backends.kernels.covering import covering
from backends.kernels.functions import RELU, Function
from backends.memory import Array


class CompiledActivationKernels(Launching, PortableActivationKernels):
    """Activations and their gradients."""

    @covering(masters=("bias",))
    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        self.finish(y, None, bias, RELU if rectify else None)

    @covering(masters=("scale", "bias"))
    def finish(self, y: Array, scale: Array | None, bias: Array | None, formula: Function | None) -> None:
        if scale is None and bias is None and formula is None:
            return
        lengths = (1 if array is None else y.size // array.size for array in (scale, bias))
        arguments = (y, scale, bias, *lengths, *function_arguments(formula), y.size)
        self._launch.threads("finish", y.dtype, y.size, arguments)

    @covering(masters=())
    def relu(self, x: Array, out: Array) -> None:
        self.activate(x, RELU, out)

    @covering(masters=("sums",))
    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        if sums is None:
            self._launch.threads("relu_grad", dy.dtype, out.size, (dy, y, out, out.size))
        else:
            arguments = (dy, y, out, sums, out.size // len(out))
            self._launch.grid("relu_grad_rows", dy.dtype, (len(out),), (THREADS,), arguments, 8 * THREADS)

    @covering(masters=())
    def tanh(self, x: Array, out: Array) -> None:
        self.activate(x, Function("tanh"), out)

    @covering(masters=())
    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        self._launch.threads("tanh_grad", dy.dtype, out.size, (dy, y, out, out.size))

    @covering(masters=())
    def activate(self, x: Array, formula: Function, out: Array) -> None:
        self._activate(x, None, formula, out)

    @covering(masters=())
    def add_activate(self, x: Array, addend: Array, formula: Function | None, out: Array) -> None:
        self._activate(x, addend, formula, out)

    def _activate(self, x: Array, addend: Array | None, formula: Function | None, out: Array) -> None:
        arguments = (x, addend, out, *function_arguments(formula), x.size)
        self._launch.threads("activate", x.dtype, x.size, arguments)

    @covering(masters=())
    def activate_grad(self, dy: Array, x: Array, formula: Function, out: Array) -> None:
        arguments = (dy, x, out, *function_arguments(formula), x.size)
        self._launch.threads("activate_grad", x.dtype, x.size, arguments)

    @covering(masters=("weight",))
    def prelu(self, x: Array, weight: Array, out: Array) -> None:
        self._launch.threads("prelu", x.dtype, x.size, (x, weight, out, x.size // weight.size, x.size))

    @covering(masters=("weight", "weight_grad"))
    def prelu_grad(self, dy: Array, x: Array, weight: Array, weight_grad: Array, dx: Array | None) -> None:
        rows, length = weight.size, x.size // weight.size
        parts, threads = parts_of_rows(rows, length)
        sums = weight_grad if parts == 1 else self.scratch("gradient sums", (rows, parts), weight.dtype)
        arguments = (dy, x, weight, sums, dx, rows, length)
        self._launch.grid("prelu_grad", x.dtype, (parts, rows), (threads,), arguments, 8 * threads)
        if parts > 1:
            self.sum_rows(sums, weight_grad)

    @covering(masters=())
    def softmax(self, x: Array, out: Array) -> None:
        F, N = len(x), x.size // len(x)
        self._launch.threads("softmax", x.dtype, N, (x, out, F, N))

    @covering(masters=())
    def softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        F, N = len(y), y.size // len(y)
        self._launch.threads("softmax_grad", y.dtype, N, (dy, y, out, F, N))

    @covering(masters=())
    def log_softmax(self, x: Array, out: Array) -> None:
        F, N = len(x), x.size // len(x)
        self._launch.threads("log_softmax", x.dtype, N, (x, out, F, N))

    @covering(masters=())
    def log_softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        F, N = len(y), y.size // len(y)
        self._launch.threads("log_softmax_grad", y.dtype, N, (dy, y, out, F, N))
