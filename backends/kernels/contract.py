"""Every kernel: what it computes, the shapes of its arrays, and a default if it can be composed of others.

The batch is the last axis: ``x`` (C, H, W, N), ``y`` (O, OH, OW, N) or (F, N), ``labels`` and ``losses``
(N,); ``weight`` is (O, C/groups, KH, KW). A kernel writes into arrays that it is given.
Nothing that it allocates outlives the call.

A kernel set overrides what it computes faster. Arrays that an override does not support (another dtype, not
contiguous) go to the same kernel of :class:`backends.kernels.PortableKernels`.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from math import prod
from typing import Any

from backends import graph
from backends.kernels.augmentation import Program
from backends.kernels.functions import Function
from backends.kernels.sampling import Sampling
from backends.kernels.window import Window
from backends.memory import Array, Device, Shape

NORM_ROUNDING = 1e-6
"""Added to a norm that is divided by, as in PyTorch."""

TINY = 1e-30
"""Optimizer state below this becomes zero: subnormal numbers would slow down every later step."""


MUON_COEFFICIENTS, MUON_EPSILON = (3.4445, -4.775, 2.0315), 1e-7
"""Of the Newton-Schulz iteration a x + b (x x^T) x + c (x x^T)^2 x, and the smallest norm."""


def _as_one_call(kernel: Callable[..., None]) -> Callable[..., None]:
    @wraps(kernel)
    def called(*arguments: Any, **named: Any) -> None:
        graph.call(kernel, *arguments, **named)

    return called


class Kernels:
    """The kernels of one device. All sets have all of them, so a layer never asks what a set can do."""

    name: str
    slower: str | None = None  # why the set is slower on this machine than it could be
    thread_limit: Any = None  # how many threads the kernels use and why; None: as many as BLAS
    compile_seconds = 0.0  # that this process has spent compiling kernels

    def __init__(self, device: Device) -> None:
        self.device = device

    def __init_subclass__(cls, records_launches: bool = False) -> None:
        """Let a recording store each kernel of the set as one call.

        A set that ``records_launches`` adds what its kernels do to a recording itself.
        """
        for name, kernel in list(vars(cls).items()):
            if not records_launches and name in _declared() and inspect.isfunction(kernel):
                setattr(cls, name, _as_one_call(kernel))

    def when_compiling(self, say: Callable[[str], None]) -> None:
        """Let ``say`` tell the user, once, that kernels are being compiled and whether they are kept."""

    def scratch(self, name: str, shape: Shape, dtype: Any) -> Array:
        """Scratch memory of this name as an array with arbitrary contents."""
        dtype = self.device.xp.dtype(dtype)
        return self.device.scratch(name, prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    # --- batches

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        """``chosen`` (n,) = the next indices in ``order``, with their labels if there are any.

        ``rate`` = the row of this step in ``rates``, (steps,) or (steps, k).
        ``cursor`` (2,) counts the samples and steps that are done, and advances; the order repeats after its
        end.
        """
        raise NotImplementedError

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        """``out`` = ``(images[indices] - shift) * scale``: (N, ...) -> (..., n).

        ``shift`` and ``scale`` (C,) are those of each channel of (N, C, H, W); None: bytes are scaled to
        0..1.
        """
        raise NotImplementedError

    # --- augmentation

    def next_samples(self, cursor: Array, order: Array, chosen: Array) -> None:
        """``chosen`` (n,) = what :meth:`next_batch` will take from ``order``; the cursor stays."""
        raise NotImplementedError

    def draw(
        self, samples: Array, keys: Array, program: Program, table: Array, size: tuple[int, int], drawn: Array
    ) -> None:
        """``drawn`` (rows, n) = what the ``program`` draws from its ``table`` for each of the ``samples``.

        A draw is a hash in unsigned 32-bit integers of a key, the sample and the number of the step.
        ``keys`` (3,) are a key of the epoch, a key of the whole run, and the epoch; ``size`` is (H, W).
        :mod:`backends.kernels.augmentation` says what a program is, and what is drawn.
        """
        raise NotImplementedError

    def augment_batch(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        """:meth:`gather_batch` of images that are moved, brightened and erased as was ``drawn``.

        Outside of an image there are zeros, or its mirror image with ``reflect``. Without ``smooth`` pixels
        move by whole pixels, otherwise values are interpolated at 256 positions between two pixels.
        """
        raise NotImplementedError

    def mix_batch(self, x: Array, others: Array, drawn: Array) -> None:
        """``x`` = its mixture with the samples ``others``, as was ``drawn`` for ``x``."""
        raise NotImplementedError

    def mix_targets(self, own: Array, others: Array, drawn: Array, out: Array) -> None:
        """``out`` (classes, n) = the mixture of the targets: labels (n,) or numbers (classes, n)."""
        raise NotImplementedError

    # --- sums and products

    def copy(self, x: Array, out: Array) -> None:
        """``out = x``."""
        raise NotImplementedError

    def add(self, x: Array, y: Array, out: Array) -> None:
        """``out = x + y``; ``out`` may be one of them."""
        raise NotImplementedError

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
        """``out`` (m, n) = ``a`` (m, k) @ ``b`` (k, n), or ``out += a @ b``; by default through BLAS."""
        self.device.matmul(a, b, out, accumulate)

    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        """``y += bias``, whose shape is that of ``y``'s first axes; then ReLU if ``rectify``. In place."""
        raise NotImplementedError

    def sum_rows(self, x: Array, out: Array) -> None:
        """``out``, whose shape is that of ``x``'s first axes, = the sums of ``x`` over all further axes."""
        raise NotImplementedError

    # --- convolution

    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        """``out`` (O, OH, OW, N) = the cross-correlation of ``x`` with ``weight``."""
        raise NotImplementedError

    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        """``out`` (O, C/groups, KH, KW) = the gradient of the weight."""
        raise NotImplementedError

    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        """``out`` (C, H, W, N) = the gradient of the input."""
        raise NotImplementedError

    def conv2d_relu(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int
    ) -> None:
        """``out`` = ReLU of the convolution plus ``bias``, (O,) or (O, OH, OW)."""
        self.conv2d(x, weight, out, window, groups)
        if bias is None:
            self.relu(out, out)
        else:
            self.add_bias(out, bias, rectify=True)

    def conv2d_relu_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, out: Array, winner: Array | None, window: Window,
        groups: int, pool: Window,
    ) -> None:  # fmt: skip
        """``out`` = the max pooling of :meth:`conv2d_relu`, ``winner`` as in :meth:`max_pool2d`."""
        shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        y = self.scratch("convolution", shape, x.dtype)
        self.conv2d_relu(x, weight, bias, y, window, groups)
        self.max_pool2d(y, out, winner, pool)

    def conv2d_relu_grad(
        self, dy: Array, x: Array, y: Array, winner: Array | None, weight: Array, window: Window, groups: int,
        pool: Window | None, weight_grad: Array, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`conv2d_relu`, or with ``pool`` of :meth:`conv2d_relu_max_pool2d`.

        ``y`` is the output and ``winner`` the taps of that forward. ``bias_grad`` and ``dx`` may be None.
        """
        shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        grad = self.scratch("gradient", shape, dy.dtype)
        if pool is None:
            self.relu_grad(dy, y, grad)
        else:
            rectified = self.scratch("rectified", dy.shape, dy.dtype)
            self.relu_grad(dy, y, rectified)
            self.max_pool2d_grad(rectified, winner, grad, pool)
        self.conv2d_grad_weight(x, grad, weight_grad, window, groups)
        if bias_grad is not None:
            self.sum_rows(grad, bias_grad)
        if dx is not None:
            self.conv2d_grad_input(grad, weight, dx, window, groups)

    # --- pooling

    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        """``out`` = each window's maximum, ``winner`` = the tap that it came from (None: not wanted).

        The first maximum in row-major order wins, and NaN wins over every number. ``winner`` has one byte for
        a window of up to 256 taps, else an int32.
        """
        raise NotImplementedError

    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        """``out`` = the gradient of the input: each ``dy`` goes to its window's winner."""
        raise NotImplementedError

    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        """``out`` (C, OH, OW, N) = ``x`` (C, H, W, N) with its rows, and then its columns, resampled.

        Average pooling, padding and enlarging are made of it. Its gradient is the same kernel with both
        samplings transposed.
        """
        raise NotImplementedError

    # --- activations

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

    # --- normalization and dropout

    def moments(self, x: Array, mean: Array, variance: Array) -> None:
        """``mean`` and biased ``variance`` (C,) of ``x`` (C, ...) over all axes but the first."""
        raise NotImplementedError

    def track(
        self, running_mean: Array, running_variance: Array, batches: Array, mean: Array, variance: Array,
        momentum: float | None, unbiased: float,
    ) -> None:  # fmt: skip
        """Move the running averages towards ``mean`` and ``unbiased * variance``, and count the batch.

        ``momentum`` is the weight of the batch; None: 1 / the number of batches.
        """
        raise NotImplementedError

    def normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array,
    ) -> None:  # fmt: skip
        """``out = (x - mean) / sqrt(variance + epsilon) * weight + bias`` for each row of ``x`` (C, ...).

        ``out`` may be ``x``.
        """
        raise NotImplementedError

    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, epsilon: float,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`normalize` with the moments of ``x``; ``dx=None``: not wanted."""
        raise NotImplementedError

    def normalize_relu(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array,
    ) -> None:  # fmt: skip
        """``out`` = ReLU of :meth:`normalize`."""
        self.normalize(x, mean, variance, weight, bias, epsilon, out)
        self.relu(out, out)

    def normalize_relu_grad(
        self, dy: Array, x: Array, y: Array, mean: Array, variance: Array, weight: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`normalize_relu`, whose output is ``y``, with the moments of ``x``."""
        grad = self.scratch("gradient", dy.shape, dy.dtype)
        self.relu_grad(dy, y, grad)
        self.normalize_grad(grad, x, mean, variance, weight, epsilon, weight_grad, bias_grad, dx)

    def fold(
        self, weight: Array, bias: Array | None, mean: Array, variance: Array, scale: Array | None,
        shift: Array | None, epsilon: float, out_weight: Array, out_bias: Array,
    ) -> None:  # fmt: skip
        """The weight (O, ...) and the bias that include :meth:`normalize` by ``scale`` and ``shift``.

        For each output channel, ``out_weight = weight * f`` and ``out_bias = (bias - mean) * f + shift``,
        where ``f = scale / sqrt(variance + epsilon)``. ``bias`` is (O,) or (O, OH, OW), as ``out_bias``.
        """
        raise NotImplementedError

    def normalize_groups(
        self, x: Array, weight: Array | None, bias: Array | None, epsilon: float, mean: Array, scale: Array,
        out: Array,
    ) -> None:  # fmt: skip
        """``out = (x - mean) * scale * weight + bias`` for each sample's groups of channels.

        ``mean`` and ``scale`` = 1 / sqrt(variance + epsilon), (groups, N), are written. The shape of
        ``weight`` and ``bias`` is that of the first axes of ``x``.
        """
        raise NotImplementedError

    def normalize_groups_grad(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`normalize_groups`; None: not wanted."""
        raise NotImplementedError

    def dropout(
        self, x: Array, p: float, stream: int, counters: Array, out: Array, channels: bool = False
    ) -> None:
        """``out = x / (1 - p)`` with probability 1 - p, else 0.

        The choice is a hash in unsigned 32-bit integers of ``stream``, ``counters`` (the number of updates,
        and the position in the whole batch of ``x``'s first sample), the sample's and the number's position.
        With ``channels`` it is made for each channel, whose position counts, and not for each number.
        """
        raise NotImplementedError

    # --- losses
    #
    # ``targets`` are labels (N,), which stand for one-hot columns, or numbers in the shape of ``y`` (..., N).
    # ``losses`` (N,) has a number for each sample, ``dy`` is the gradient of their sum / ``divisor``, and
    # ``sums`` is as in :meth:`tally` (None: not wanted).

    def cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        """``losses`` = -sum(t log softmax(y)) of logits (classes, N); columns of ``t`` may have any sum."""
        raise NotImplementedError

    def focal(
        self, y: Array, targets: Array, gamma: float, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        """``losses`` = -sum(t (1 - p)^gamma log p) for ``p`` = softmax(y) of logits (classes, N)."""
        raise NotImplementedError

    def binary_cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        """``losses`` = -mean(t log p + (1 - t) log(1 - p)) of probabilities ``y``."""
        raise NotImplementedError

    def logistic_loss(
        self, y: Array, targets: Array, positive: Array, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        """``losses`` = -mean(w t log p + (1 - t) log(1 - p)) for ``p`` = sigmoid(y).

        ``positive`` (C,) has the weight w for each entry of the first axis.
        """
        raise NotImplementedError

    def squared_error(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        """``losses`` = mean((y - t)^2)."""
        raise NotImplementedError

    def absolute_error(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        """``losses`` = mean(|y - t|)."""
        raise NotImplementedError

    def huber(
        self, y: Array, targets: Array, delta: float, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        """``losses`` = mean(d^2 / 2) for d = |y - t| up to ``delta``; above it delta (d - delta / 2)."""
        raise NotImplementedError

    def class_targets(
        self, targets: Array, class_weights: Array, smoothing: float, ignored: int | None, out: Array,
        shares: Array,
    ) -> None:  # fmt: skip
        """``out`` (classes, N) = class_weights * ((1 - smoothing) t + smoothing / classes).

        ``shares`` (N,) = the weight of each label; 1 if the targets are numbers. Both are 0 for the label
        ``ignored``, and NaN for one that is no class.
        """
        raise NotImplementedError

    def weigh(self, losses: Array, dy: Array, weights: Array) -> None:
        """Multiply the losses (N,) and the gradient (..., N) by ``weights`` (N,), in place."""
        raise NotImplementedError

    def add_up(self, shares: Array, total: Array) -> None:
        """``total`` (1,) += the sum of ``shares`` (N,)."""
        raise NotImplementedError

    def divide(self, x: Array, total: Array) -> None:
        """``x /= total`` (1,), in place; if the total is 0, ``x`` becomes 0."""
        raise NotImplementedError

    def tally(
        self, losses: Array, y: Array, targets: Array, sums: Array, shares: Array | None = None
    ) -> None:
        """``sums`` (3,) += the sum of the losses, how often ``y`` is largest at the label, N; in float64.

        The label of numbers is where they are largest. With ``shares`` (N,), ``sums`` is (5,): right answers
        count only where the share is not 0, and the sum of the shares and the count of these are added too.
        If ``y`` is not (classes, N), there are no right answers.
        """
        raise NotImplementedError

    # --- metrics: counts in float64, of samples whose label is a class and whose share is not 0

    def count_top(self, y: Array, targets: Array, k: int, sums: Array, shares: Array | None = None) -> None:
        """``sums`` (2,) += how often the label is among the ``k`` largest of ``y`` (classes, N); samples."""
        raise NotImplementedError

    def count_pairs(self, y: Array, targets: Array, counts: Array, shares: Array | None = None) -> None:
        """``counts[label, argmax y]`` += 1 for each sample; counts is (classes, classes)."""
        raise NotImplementedError

    def count_confidence(self, p: Array, targets: Array, sums: Array, shares: Array | None = None) -> None:
        """``sums`` (3, bins) += samples, the sum of their largest ``p``, right answers; by the largest ``p``.

        Bin m has those above m / bins, up to (m + 1) / bins.
        """
        raise NotImplementedError

    # --- updates of flat vectors

    def count_update(self, counters: Array) -> None:
        """``counters`` (updates, samples): one more update, and no samples of the next batch yet."""
        raise NotImplementedError

    def count_samples(self, counters: Array, samples: int) -> None:
        """``counters`` (updates, samples): so many more samples of the batch are done."""
        raise NotImplementedError

    def clip_norm(self, grad: Array, limit: float) -> None:
        """``grad *= min(1, limit / (|grad| + 1e-6))``, as PyTorch computes it.

        If the norm is NaN, the gradient stays as it is: its padding would become NaN for good.
        """
        raise NotImplementedError

    def clear(self, x: Array) -> None:
        """``x = 0``."""
        raise NotImplementedError

    def scale(self, x: Array, factor: float, out: Array) -> None:
        """``out = factor * x``; ``out`` may be ``x``."""
        raise NotImplementedError

    def clip_value(self, grad: Array, limit: float) -> None:
        """``grad`` = each number moved into the range from -``limit`` to ``limit``; NaN stays NaN."""
        raise NotImplementedError

    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: Array,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        """``v = momentum * v + g + weight_decay * value``, ``value -= rate * v``.

        ``rate`` and ``momentum`` (1,) are on the device, so that they may change from step to step.
        ``velocity=None``: without momentum. With ``nesterov`` the step is the gradient + momentum * v.
        """
        raise NotImplementedError

    def next_powers(self, powers: Array, factors: tuple[float, float]) -> None:
        """``powers`` (2,) = beta^t of two moving averages in the next step: ``powers *= factors``."""
        raise NotImplementedError

    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        """``value -= rate * mean / (1 - b1^t) / (sqrt(square / (1 - b2^t)) + epsilon)``.

        ``powers`` (2,) is b1^t, b2^t, from :meth:`next_powers`. The decay is added to the gradient, or
        subtracted from the values if ``decoupled``.
        """
        raise NotImplementedError

    def rmsprop(
        self, value: Array, grad: Array, square: Array, mean: Array | None, velocity: Array | None,
        rate: Array, alpha: float, epsilon: float, momentum: float, weight_decay: float,
    ) -> None:  # fmt: skip
        """``square`` = the average of g^2, ``value -= rate * g / (sqrt(square) + epsilon)``.

        With ``mean``, the average of g, the root is that of the variance; ``velocity`` adds momentum.
        """
        raise NotImplementedError

    def adagrad(
        self, value: Array, grad: Array, square: Array, rate: Array, epsilon: float, weight_decay: float
    ) -> None:
        """``square += g^2``, ``value -= rate * g / (sqrt(square) + epsilon)``."""
        raise NotImplementedError

    def next_nadam(self, progress: Array, beta: float, beta_square: float, decay: float) -> None:
        """``progress`` = t, the product of all mu, mu of this step and of the next, ``beta_square``^t."""
        raise NotImplementedError

    def nadam(
        self, value: Array, grad: Array, mean: Array, square: Array, progress: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float,
    ) -> None:  # fmt: skip
        """Adam with Nesterov momentum; ``progress`` (5,) from :meth:`next_nadam`."""
        raise NotImplementedError

    def lion(
        self, value: Array, grad: Array, mean: Array, rate: Array, betas: tuple[float, float],
        weight_decay: float,
    ) -> None:  # fmt: skip
        """``value -= rate * (sign(b1 * mean + (1 - b1) * g) + weight_decay * value)``; ``mean`` with b2."""
        raise NotImplementedError

    def lamb(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float,
    ) -> None:  # fmt: skip
        """Adam's step + ``weight_decay * value``, scaled to the norm of ``value``, which is one parameter."""
        raise NotImplementedError

    def muon(
        self, value: Array, grad: Array, velocity: Array, rate: Array, momentum: Array, nesterov: bool,
        weight_decay: float, steps: int,
    ) -> None:  # fmt: skip
        """``value`` (rows, columns) -= rate * the orthogonal matrix nearest to the gradient with momentum.

        ``steps`` Newton-Schulz iterations find it; the rate is multiplied by sqrt(max(1, rows / columns)).
        """
        raise NotImplementedError

    def average(self, value: Array, mean: Array, count: Array, decay: float) -> None:
        """``mean`` = the exponential moving average of ``value``, which it is after the first update.

        ``count`` (1,) is the number of earlier updates, from :meth:`count_average`.
        """
        raise NotImplementedError

    def count_average(self, count: Array) -> None:
        """``count += 1``."""
        raise NotImplementedError

    def lookahead(self, value: Array, slow: Array, count: Array, every: int, alpha: float) -> None:
        """``slow += alpha (value - slow)``, ``value = slow``, if ``count + 1`` is a multiple of ``every``."""
        raise NotImplementedError


def _declared() -> set[str]:
    """The names of all kernels."""
    others = {"when_compiling", "scratch"}
    functions = {name for name, value in vars(Kernels).items() if inspect.isfunction(value)}
    return {name for name in functions - others if not name.startswith("_")}
