"""A convolution in one pass with what follows it: kernels with a default that is composed of others.

A kernel set overrides what it computes in one pass.
"""

from collections.abc import Callable

from backends.kernels.normalization import NormalizationKernels
from backends.kernels.window import Window
from backends.memory import Array


class FusedKernels(NormalizationKernels):
    """The declarations and their defaults."""

    conv2d: Callable[..., None]  # these are declared in contract.py
    conv2d_grad_weight: Callable[..., None]
    conv2d_grad_input: Callable[..., None]
    max_pool2d: Callable[..., None]
    max_pool2d_grad: Callable[..., None]

    def conv2d_relu(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int
    ) -> None:
        """``out`` = ReLU of the convolution plus ``bias``, (O,) or (O, OH, OW)."""
        self.conv2d(x, weight, out, window, groups)
        if bias is None:
            self.relu(out, out)
        else:
            self.add_bias(out, bias, rectify=True)

    def conv2d_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, out: Array, winner: Array | None, window: Window,
        groups: int, pool: Window, rectify: bool,
    ) -> None:  # fmt: skip
        """``out`` = the max pooling of the convolution plus ``bias``, or with ``rectify`` of ReLU of that.

        ``winner`` is that of :meth:`max_pool2d`.
        """
        shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        y = self.scratch("convolution", shape, x.dtype)
        if rectify:
            self.conv2d_relu(x, weight, bias, y, window, groups)
        else:
            self.conv2d(x, weight, y, window, groups)
            if bias is not None:
                self.add_bias(y, bias)
        self.max_pool2d(y, out, winner, pool)

    def conv2d_epilogue_grad(
        self, dy: Array, x: Array, y: Array | None, winner: Array | None, weight: Array, window: Window,
        groups: int, pool: Window | None, weight_grad: Array, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`conv2d_relu`, or with ``pool`` of :meth:`conv2d_max_pool2d`.

        ``y`` is the output of that forward, or None without ReLU, and ``winner`` has its taps. ``bias_grad``
        and ``dx`` may be None.
        """
        shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        grad = self.scratch("gradient", shape, dy.dtype)
        if pool is None:
            self.relu_grad(dy, y, grad)
        else:
            if y is not None:
                rectified = self.scratch("rectified", dy.shape, dy.dtype)
                self.relu_grad(dy, y, rectified)
                dy = rectified
            self.max_pool2d_grad(dy, winner, grad, pool)
        self.conv2d_grad_weight(x, grad, weight_grad, window, groups)
        if bias_grad is not None:
            self.sum_rows(grad, bias_grad)
        if dx is not None:
            self.conv2d_grad_input(grad, weight, dx, window, groups)

    def conv2d_moments(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        mean: Array, variance: Array,
    ) -> None:  # fmt: skip
        """``out`` = the convolution plus ``bias``, and the :meth:`moments` of its channels."""
        self.conv2d(x, weight, out, window, groups)
        if bias is not None:
            self.add_bias(out, bias)
        self.moments(out, mean, variance)
