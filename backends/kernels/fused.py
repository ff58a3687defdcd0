"""What is computed in one pass with what follows it: kernels with a default that is composed of others.

A kernel set overrides what it computes in one pass.
"""

from collections.abc import Callable

from backends.kernels.functions import RELU, Function
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

    def conv2d_activate(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int,
        formula: Function | None,
    ) -> None:  # fmt: skip
        """``out`` = the function ``formula`` of the convolution plus ``bias``, (O,) or (O, OH, OW).

        Both may be None.
        """
        self.conv2d(x, weight, out, window, groups)
        self.finish(out, None, bias, formula)

    def conv2d_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, out: Array, winner: Array | None, window: Window,
        groups: int, pool: Window, formula: Function | None, scale: Array | None = None,
    ) -> None:  # fmt: skip
        """``out`` = the function ``formula`` of the max pooling of the convolution plus ``bias``.

        ``winner`` is that of :meth:`max_pool2d`, after ReLU if ``formula`` is that. With ``scale`` (O,), what
        is pooled is multiplied by it before the bias, which is then (O,), is added.
        """
        shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        y = self.scratch("convolution", shape, x.dtype)
        self.conv2d(x, weight, y, window, groups)
        if scale is None:
            before = formula if formula == RELU else None
            self.finish(y, None, bias, before)
            bias, formula = None, None if before else formula
        self.max_pool2d(y, out, winner, pool)
        self.finish(out, scale, bias, formula)

    def finish(self, y: Array, scale: Array | None, bias: Array | None, formula: Function | None) -> None:
        """``y`` = the function ``formula`` of ``scale * y + bias``, in place; each may be None.

        ``scale`` is (O,), and ``bias`` is (O,) or has the shape of ``y``'s first axes.
        """
        if scale is None and formula in (None, RELU):
            if bias is not None:
                self.add_bias(y, bias, rectify=formula == RELU)
            elif formula == RELU:
                self.relu(y, y)
            return
        zeros = self.scratch("zeros", y.shape[:1], y.dtype)
        self.clear(zeros)
        if bias is not None and bias.ndim > 1:
            if scale is not None:
                self.normalize(y, zeros, zeros, scale, None, 1.0, y)
            self.add_bias(y, bias)
            scale = bias = None
        self.normalize(y, zeros, zeros, scale, bias, 1.0, y, formula)

    def conv2d_epilogue_grad(
        self, dy: Array, x: Array, y: Array | None, winner: Array | None, weight: Array, window: Window,
        groups: int, pool: Window | None, weight_grad: Array, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`conv2d_activate` with ReLU, or with ``pool`` of :meth:`conv2d_max_pool2d`.

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
        self.conv2d_activate(x, weight, bias, out, window, groups, None)
        self.moments(out, mean, variance)

    def normalize_and_track(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array, formula: Function | None, addend: Array | None, running_mean: Array,
        running_variance: Array, batches: Array, momentum: float | None, unbiased: float,
    ) -> None:  # fmt: skip
        """:meth:`normalize` with the moments of a batch, and :meth:`track` of them."""
        self.normalize(x, mean, variance, weight, bias, epsilon, out, formula, addend)
        self.track(running_mean, running_variance, batches, mean, variance, momentum, unbiased)
