"""Sums, products and copies. Declared first, then in plain ``xp``."""

from backends.kernels.base import KernelSet
from backends.memory import Array


class ArithmeticKernels(KernelSet):
    """The declarations; a kernel set overrides what it computes faster."""

    def copy(self, x: Array, out: Array) -> None:
        """``out = x``."""
        raise NotImplementedError

    def add(self, x: Array, y: Array, out: Array) -> None:
        """``out = x + y``; ``out`` may be one of them."""
        raise NotImplementedError

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
        """``out`` (m, n) = ``a`` (m, k) @ ``b`` (k, n), or ``out += a @ b``; by default through BLAS."""
        self.device.matmul(a, b, out, accumulate)

    def sum_rows(self, x: Array, out: Array) -> None:
        """``out``, whose shape is that of ``x``'s first axes, = the sums of ``x`` over all further axes."""
        raise NotImplementedError

    def clear(self, x: Array) -> None:
        """``x = 0``."""
        raise NotImplementedError

    def scale(self, x: Array, factor: float, out: Array) -> None:
        """``out = factor * x``; ``out`` may be ``x``. The factor is a constant of a recorded step."""
        raise NotImplementedError


class PortableArithmeticKernels(ArithmeticKernels):
    """The same in plain ``xp``, for every device."""

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
        self.device.matmul(a, b, out, accumulate)  # here, so that a recording stores it as one call

    def copy(self, x: Array, out: Array) -> None:
        out[...] = x

    def add(self, x: Array, y: Array, out: Array) -> None:
        self.device.xp.add(x, y, out=out)

    def sum_rows(self, x: Array, out: Array) -> None:
        self.device.xp.sum(x.reshape(out.size, -1), axis=1, out=out.reshape(-1))

    def clear(self, x: Array) -> None:
        x.fill(0)

    def scale(self, x: Array, factor: float, out: Array) -> None:
        self.device.xp.multiply(x, factor, out=out)

    def _one_hot(self, labels: Array, out: Array) -> None:
        """1 where the label is, 0 elsewhere: (N,) -> (classes, N)."""
        xp = self.device.xp
        xp.equal(xp.arange(len(out))[:, None], labels, out=out)


def along_rows(weight: Array, x: Array) -> Array:
    """``weight``, whose shape is (1,) or that of ``x``'s first axes, with as many axes as ``x``."""
    return weight.reshape(*weight.shape, *[1] * (x.ndim - weight.ndim))


def as_columns(array: Array) -> Array:
    """(A, B, ..., N) -> (A*B*..., N), a view."""
    return array.reshape(-1, array.shape[-1])


def as_matrix(array: Array) -> Array:
    """(A, B, C, ...) -> (A, B*C*...), a view."""
    return array.reshape(len(array), -1)
