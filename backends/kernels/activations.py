"""Activations: functions of each number, and the softmax. Declared first, then in plain ``xp``."""

from backends.kernels.arithmetic import ArithmeticKernels, PortableArithmeticKernels, along_rows
from backends.kernels.functions import Formulas, Function
from backends.memory import Array, temporaries


class ActivationKernels(ArithmeticKernels):
    """The declarations; a kernel set overrides what it computes faster."""

    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        """``y += bias``, whose shape is that of ``y``'s first axes; then ReLU if ``rectify``. In place."""
        raise NotImplementedError

    def relu(self, x: Array, out: Array) -> None:
        """``out = max(x, 0)``; ``out`` may be ``x``."""
        raise NotImplementedError

    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        """``out`` = ``dy`` where ReLU's output ``y`` is positive, else 0; ``sums`` = the sum of each row."""
        raise NotImplementedError

    def tanh(self, x: Array, out: Array) -> None:
        """``out = tanh(x)``, without overflow."""
        raise NotImplementedError

    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        """``out = dy (1 - y^2)`` for the output ``y`` of tanh."""
        raise NotImplementedError

    def activate(self, x: Array, formula: Function, out: Array) -> None:
        """``out`` = the function ``formula`` of each number of ``x``."""
        raise NotImplementedError

    def activate_grad(self, dy: Array, x: Array, formula: Function, out: Array) -> None:
        """``out = dy f'(x)``, where f is the function ``formula``."""
        raise NotImplementedError

    def add_activate(self, x: Array, addend: Array, formula: Function | None, out: Array) -> None:
        """``out`` = the function ``formula`` of ``x + addend``, or the sum itself if it is None."""
        raise NotImplementedError

    def prelu(self, x: Array, weight: Array, out: Array) -> None:
        """``out`` = x if x > 0, else weight * x; ``weight`` is (1,), or (C,) for ``x`` (C, ...)."""
        raise NotImplementedError

    def prelu_grad(self, dy: Array, x: Array, weight: Array, weight_grad: Array, dx: Array | None) -> None:
        """The gradients of :meth:`prelu`; ``dx=None``: not wanted."""
        raise NotImplementedError

    def softmax(self, x: Array, out: Array) -> None:
        """``out`` = the softmax of ``x`` along the first axis, without overflow."""
        raise NotImplementedError

    def softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        """``out = y (dy - sum(y dy))`` along the first axis: the product with the Jacobian."""
        raise NotImplementedError

    def log_softmax(self, x: Array, out: Array) -> None:
        """``out`` = the logarithm of the softmax of ``x`` along the first axis."""
        raise NotImplementedError

    def log_softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        """``out = dy - exp(y) sum(dy)`` along the first axis, for the output ``y`` of log_softmax."""
        raise NotImplementedError


class PortableActivationKernels(PortableArithmeticKernels, ActivationKernels):
    """The same in plain ``xp``, for every device."""

    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        y += along_rows(bias, y)
        if rectify:
            self.relu(y, y)

    def relu(self, x: Array, out: Array) -> None:
        # as maximum(x, 0), which NumPy computes three times slower for a number than for an array
        self.device.xp.clip(x, 0, self.device.xp.inf, out=out)

    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        xp = self.device.xp
        (mask,) = temporaries(self.device, (dy.shape, xp.bool_))
        xp.greater(y, 0, out=mask)
        xp.multiply(dy, mask, out=out)
        if sums is not None:
            self.sum_rows(out, sums)

    def tanh(self, x: Array, out: Array) -> None:
        self.device.xp.tanh(x, out=out)

    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        xp = self.device.xp
        xp.multiply(y, y, out=out)
        xp.subtract(1, out, out=out)
        xp.multiply(out, dy, out=out)

    def activate(self, x: Array, formula: Function, out: Array) -> None:
        getattr(self._formulas(x, formula), formula.name)(x, out)

    def activate_grad(self, dy: Array, x: Array, formula: Function, out: Array) -> None:
        getattr(self._formulas(x, formula), f"{formula.name}_slope")(x, out)
        self.device.xp.multiply(out, dy, out=out)

    def add_activate(self, x: Array, addend: Array, formula: Function | None, out: Array) -> None:
        self.add(x, addend, out)
        self._apply(formula, out)

    def _apply(self, formula: Function | None, x: Array) -> None:
        """``x`` = the function ``formula`` of it."""
        if formula is not None:
            result = self.scratch("function", x.shape, x.dtype)
            self.activate(x, formula, result)
            x[...] = result

    def prelu(self, x: Array, weight: Array, out: Array) -> None:
        xp = self.device.xp
        (work,) = temporaries(self.device, (x.shape, x.dtype))
        xp.clip(x, -xp.inf, 0, out=work)
        xp.multiply(work, along_rows(weight, x), out=work)
        xp.clip(x, 0, xp.inf, out=out)
        xp.add(out, work, out=out)

    def prelu_grad(self, dy: Array, x: Array, weight: Array, weight_grad: Array, dx: Array | None) -> None:
        xp = self.device.xp
        work, mask = temporaries(self.device, (x.shape, x.dtype), (x.shape, xp.bool_))
        xp.clip(x, -xp.inf, 0, out=work)
        xp.multiply(work, dy, out=work)
        self.sum_rows(work, weight_grad)
        if dx is not None:
            xp.greater(x, 0, out=mask)
            xp.multiply(dy, along_rows(weight, x), out=dx)
            xp.copyto(dx, dy, where=mask)

    def softmax(self, x: Array, out: Array) -> None:
        xp = self.device.xp
        xp.subtract(x, xp.max(x, axis=0, keepdims=True), out=out)
        xp.exp(out, out=out)
        xp.divide(out, xp.sum(out, axis=0, keepdims=True), out=out)

    def softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        xp = self.device.xp
        xp.multiply(y, dy, out=out)
        total = xp.sum(out, axis=0, keepdims=True)
        xp.subtract(dy, total, out=out)
        xp.multiply(out, y, out=out)

    def log_softmax(self, x: Array, out: Array) -> None:
        xp = self.device.xp
        (work,) = temporaries(self.device, (x.shape, x.dtype))
        xp.subtract(x, xp.max(x, axis=0, keepdims=True), out=out)
        xp.exp(out, out=work)
        xp.subtract(out, xp.log(xp.sum(work, axis=0, keepdims=True)), out=out)

    def log_softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        xp = self.device.xp
        xp.exp(y, out=out)
        xp.multiply(out, xp.sum(dy, axis=0, keepdims=True), out=out)
        xp.subtract(dy, out, out=out)

    def _formulas(self, x: Array, formula: Function) -> Formulas:
        shapes = (x.shape, x.dtype), (x.shape, x.dtype), (x.shape, self.device.xp.bool_)
        return Formulas(self.device, formula, *temporaries(self.device, *shapes))
