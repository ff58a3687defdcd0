"""Activations and their gradients."""

import numpy as np

from backends import graph
from backends.cpu.compiled import (
    functions,
    pooling,
    steps,
)
from backends.cpu.compiled.jit import thread_count
from backends.cpu.kernels.launching import NOTHING, Launching, floats
from backends.kernels.activations import PortableActivationKernels
from backends.kernels.covering import covering
from backends.kernels.functions import Function
from backends.memory import Array


class CompiledActivationKernels(Launching, PortableActivationKernels):
    """Activations and their gradients."""

    @covering()
    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        arguments = (y, bias, bias.size, y.size // bias.size, int(rectify))
        steps.add_bias(y.dtype, arguments, thread_count(y.size))

    def relu(self, x: Array, out: Array) -> None:
        graph.launch(np.clip, x, 0, np.inf, out=out)

    @covering()
    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        rows = len(out)
        arguments = (out, dy, y, NOTHING[out.dtype] if sums is None else sums, int(sums is not None))
        pooling.relu_grad(out.dtype, (*arguments, rows, out.size // rows), thread_count(out.size))

    @covering()
    def tanh(self, x: Array, out: Array) -> None:
        self.activate(x, Function("tanh"), out)

    @covering()
    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        steps.tanh_grad(y.dtype, (dy, y, out, y.size), thread_count(y.size))

    @covering()
    def activate(self, x: Array, formula: Function, out: Array) -> None:
        constants = floats(x.dtype, formula.a, formula.b)
        functions.VALUES[formula.name](x.dtype, (x, constants, out, x.size), thread_count(4 * x.size))

    @covering()
    def activate_grad(self, dy: Array, x: Array, formula: Function, out: Array) -> None:
        constants = floats(x.dtype, formula.a, formula.b)
        arguments = (dy, x, constants, out, x.size)
        functions.GRADIENTS[formula.name](x.dtype, arguments, thread_count(4 * x.size))

    @covering()
    def softmax(self, x: Array, out: Array) -> None:
        steps.softmax(x.dtype, (x, out, len(x), x.size // len(x)), thread_count(20 * x.size))

    @covering()
    def softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        steps.softmax_grad(y.dtype, (dy, y, out, len(y), y.size // len(y)), thread_count(y.size))

    @covering()
    def log_softmax(self, x: Array, out: Array) -> None:
        steps.log_softmax(x.dtype, (x, out, len(x), x.size // len(x)), thread_count(20 * x.size))

    @covering()
    def log_softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        arguments = (dy, y, out, len(y), y.size // len(y))
        steps.log_softmax_grad(y.dtype, arguments, thread_count(20 * y.size))

    @covering()
    def prelu(self, x: Array, weight: Array, out: Array) -> None:
        rows = len(x)
        arguments = (x, weight, out, rows, x.size // rows, int(weight.size > 1))
        steps.prelu(x.dtype, arguments, thread_count(x.size))

    @covering()
    def prelu_grad(self, dy: Array, x: Array, weight: Array, weight_grad: Array, dx: Array | None) -> None:
        rows, each = len(x), int(weight.size > 1)
        (shares,) = [weight_grad] if each else self._vectors(x.dtype, rows)
        arguments = (dy, x, weight, shares, dx if dx is not None else shares, rows, x.size // rows, each)
        steps.prelu_grad(x.dtype, (*arguments, int(dx is not None)), thread_count(x.size))
        if not each:
            steps.sum_rows(x.dtype, (shares, weight_grad, 1, rows))
