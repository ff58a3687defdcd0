"""CPU kernels compiled by Numba; unsupported inputs fall back to the portable kernels.

They accept contiguous arrays of one dtype, float32 or float64, which is what the layers use.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from math import inf, prod, sqrt
from typing import Any

import numpy as np

from backends import graph
from backends.cpu import threads
from backends.cpu.compiled import (
    augmentation,
    convolution,
    depthwise,
    functions,
    kept,
    normalization,
    pooling,
    resampling,
    steps,
)
from backends.cpu.compiled.convolution import ALONE, BEFORE_POOL, BEFORE_RELU
from backends.cpu.compiled.jit import HAS_THREADS, MULTIPLICATIONS, clock, thread_count
from backends.cpu.compiled.matmul import matmul
from backends.cpu.compiled.products import inner_product, lanes, outer_product
from backends.kernels.augmentation import Program
from backends.kernels.covering import FLOATS, covering, covers
from backends.kernels.functions import Function
from backends.kernels.hashing import hash_limit
from backends.kernels.portable import PortableKernels
from backends.kernels.sampling import Sampling
from backends.kernels.updates import NORM_ROUNDING, TINY
from backends.kernels.window import Pair, Window
from backends.memory import Array, Device, Shape

BYTES, INDICES, FLOAT64 = np.dtype(np.uint8), np.dtype(np.intp), np.dtype(np.float64)
AT_ONCE = 1024  # elements of a line of dy; with those of all channels they stay in the L2 cache
POOLED_BYTES = 1 << 19  # bytes per thread of a convolution that is pooled in the same pass; they stay in L2


class CompiledKernels(PortableKernels, records_launches=True):
    """Direct convolution, pooling line by line, products from tiles, everything else in single passes."""

    name = "compiled"
    largest = inf

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        if not HAS_THREADS:
            self.slower = (
                "the compiled kernels use one thread, since Numba has no thread pool that is safe to share: "
                "install libgomp (Linux) or libomp (macOS), and unset NUMBA_THREADING_LAYER and "
                "NUMBA_THREADING_LAYER_PRIORITY if they are set"
            )

    @property
    def thread_limit(self) -> threads.Limit:
        return threads.limit() if HAS_THREADS else threads.Limit(1, "Numba has no safe thread pool")

    @property
    def compile_seconds(self) -> float:  # type: ignore[override]
        """Seconds that this process has spent on compiling kernels; loading them from disk takes none."""
        return clock.seconds

    def when_compiling(self, say: Callable[[str], None]) -> None:
        kept.folder.say = say
        clock.begun = lambda: say(
            f"compiling kernels for this processor, which takes up to a minute; {kept.folder.outlook}"
        )

    @covering()
    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        self._convolve(x, weight, None, out, window, groups, rectify=False)

    @covering()
    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        if _is_depthwise(out, groups):
            sizes = (len(out), len(out) // groups, *x.shape[1:], _pool(window, dy.shape))
            depthwise.grad_weight(out.dtype, (out, dy, x, *sizes), thread_count(_work(out, dy.shape)))
        else:
            self._grad_weight(x, dy, dy.shape, out, window, groups)

    @covering()
    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        if _is_depthwise(weight, groups):
            sizes = (groups, len(weight) // groups, *out.shape[1:], _pool(window, dy.shape))
            work = _work(weight, dy.shape)
            depthwise.grad_input(out.dtype, (out, dy, weight, *sizes), thread_count(work))
        elif _has_direct_grad_input(window):
            border = _gradient_border(window)
            bordered, turned = self._vectors(dy.dtype, _bordered_size(dy, border), weight.size)
            bordered = self._bordered(dy, border, bordered)
            self._grad_input(bordered, dy.shape, weight, turned, out, window, groups)
        else:
            super().conv2d_grad_input(dy, weight, out, window, groups)

    @covering()
    def conv2d_relu(
        self, x: Array, weight: Array, bias: Array | None, out: Array, window: Window, groups: int
    ) -> None:
        self._convolve(x, weight, bias, out, window, groups, rectify=True)

    @covering(BYTES)
    def conv2d_relu_max_pool2d(
        self, x: Array, weight: Array, bias: Array | None, out: Array, winner: Array | None, window: Window,
        groups: int, pool: Window,
    ) -> None:  # fmt: skip
        y_shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        O, _, OW, N = y_shape
        work = _work(weight, y_shape)
        parts = thread_count(work)
        line = O * OW * N  # elements of a line of all channels
        step, extent = pool.stride[0], pool.extent[0]
        at_once = max(1, (POOLED_BYTES // (line * x.itemsize) - extent) // step + 1)
        rows = min(at_once, -(-out.shape[1] // parts))
        size = parts * line * ((rows - 1) * step + extent)
        border = _border(window)
        bordered, rows_first, scratch = self._vectors(x.dtype, _bordered_size(x, border), weight.size, size)
        x = self._bordered(x, border, bordered)
        weight = _by_rows(weight, rows_first)
        shape, offsets = _convolution(x.shape, weight.shape, y_shape, window, groups)
        keep = winner is not None
        convolution.convolve_pool(
            out.dtype,
            (
                outer_product.address(out.dtype), out, winner if keep else NO_BYTES, int(keep), scratch,
                x, weight, offsets, shape, *_bias(bias, out), _pool(pool, out.shape), rows, lanes(out.dtype),
            ),
            parts,
        )  # fmt: skip

    @covering(BYTES)
    def conv2d_relu_grad(
        self, dy: Array, x: Array, y: Array, winner: Array | None, weight: Array, window: Window, groups: int,
        pool: Window | None, weight_grad: Array, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        if _is_depthwise(weight, groups):
            super().conv2d_relu_grad(
                dy, x, y, winner, weight, window, groups, pool, weight_grad, bias_grad, dx
            )
            return
        y_shape = (len(weight), *window.output_size(*x.shape[1:3]), x.shape[-1])
        O, OH, OW, _ = y_shape
        grad = self.scratch("gradient", _gradient_shape(y_shape, window, dx is not None), dy.dtype)
        sums = None
        if bias_grad is not None:
            sums = (
                bias_grad if bias_grad.ndim == 3 else self._vectors(grad.dtype, O * OH * OW, name="sums")[0]
            )
        made_from = (BEFORE_POOL, dy, y, winner) if pool else (BEFORE_RELU, dy, y, NO_BYTES)
        sizes = _pool(pool, dy.shape) if pool else NO_INDICES
        self._grad_weight(x, grad, y_shape, weight_grad, window, groups, made_from, sums, sizes)
        if bias_grad is not None and bias_grad.ndim == 1:
            steps.sum_rows(grad.dtype, (sums, bias_grad, O, OH * OW))
        if dx is None:
            return
        if _has_direct_grad_input(window):
            turned = self._vectors(grad.dtype, weight.size)[0]
            self._grad_input(grad, y_shape, weight, turned, dx, window, groups)
        else:
            super().conv2d_grad_input(grad, weight, dx, window, groups)

    @covering(BYTES)
    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        keep = winner is not None
        arguments = (out, winner if keep else NO_BYTES, int(keep), x, *x.shape, _pool(window, out.shape))
        pooling.max_pool(x.dtype, arguments, thread_count(x.size))

    @covering(BYTES)
    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        arguments = (out, dy, winner, *out.shape, _pool(window, dy.shape))
        pooling.max_pool_grad(dy.dtype, arguments, thread_count(out.size))

    @covering()
    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        parts = thread_count(x.size + out.size)
        (lines,) = self._vectors(x.dtype, parts * prod(x.shape[2:]))
        samplings = *_sampling(rows, x.dtype), *_sampling(columns, x.dtype)
        resampling.resample(x.dtype, (out, x, lines, *samplings, *x.shape, *out.shape[1:3]), parts)

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
        scratch = partial(
            self._vectors, name="product"
        )  # portable kernels use the workspace for their operands
        if not matmul(a, b, out, accumulate, scratch):
            super().matmul(a, b, out, accumulate)

    @covering()
    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        arguments = (y, bias, bias.size, y.size // bias.size, int(rectify))
        steps.add_bias(y.dtype, arguments, thread_count(y.size))

    @covering()
    def sum_rows(self, x: Array, out: Array) -> None:
        steps.sum_rows(x.dtype, (x, out, out.size, x.size // out.size), thread_count(x.size))

    def relu(self, x: Array, out: Array) -> None:
        graph.call(np.clip, x, 0, np.inf, out=out)

    @covering()
    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        rows = len(out)
        arguments = (out, dy, y, NOTHING[out.dtype] if sums is None else sums, int(sums is not None))
        pooling.relu_grad(out.dtype, (*arguments, rows, out.size // rows), thread_count(out.size))

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        plain = images.flags.c_contiguous and out.flags.c_contiguous and indices.flags.c_contiguous
        if not plain or indices.dtype != INDICES or images.dtype not in (BYTES, out.dtype):
            super().gather_batch(images, indices, out, shift, scale)
            return
        has_bytes = images.dtype == BYTES
        if shift is None:
            shift, scale = _unnormalized(len(out), has_bytes, out.dtype)
        arguments = (
            images, indices, shift, scale, out, prod(out.shape[1:3]), prod(images.shape[1:]), len(indices),
        )  # fmt: skip
        gather = steps.gather_bytes if has_bytes else steps.gather_numbers
        gather(out.dtype, arguments, thread_count(out.size))

    def next_samples(self, cursor: Array, order: Array, chosen: Array) -> None:
        augmentation.next_samples(FLOAT64, (cursor, order, chosen, len(chosen), len(order)))

    def draw(
        self, samples: Array, keys: Array, program: Program, table: Array, size: tuple[int, int], drawn: Array
    ) -> None:
        rows, N = drawn.shape
        arguments = (samples, keys, _program(program), len(program), table, drawn, rows, *size, N)
        augmentation.draw(FLOAT64, arguments, thread_count(32 * N * len(program)))

    def augment_batch(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        plain = images.flags.c_contiguous and out.flags.c_contiguous and indices.flags.c_contiguous
        if not plain or indices.dtype != INDICES or images.dtype not in (BYTES, out.dtype):
            super().augment_batch(images, indices, drawn, reflect, smooth, shift, scale, out)
            return
        augment = augmentation.augment_bytes if images.dtype == BYTES else augmentation.augment_numbers
        parts = thread_count(4 * out.size)
        places = self.scratch("places", (parts, 2 * steps.IMAGES), INDICES)
        arguments = (images, indices, drawn, len(drawn), int(reflect), int(smooth), shift, scale, places, out)
        augment(out.dtype, (*arguments, *out.shape), parts)

    def mix_batch(self, x: Array, others: Array, drawn: Array) -> None:
        augmentation.mix(x.dtype, (x, others, drawn, *x.shape), thread_count(x.size))

    @covering()
    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        steps.tanh_grad(y.dtype, (dy, y, out, y.size), thread_count(y.size))

    @covering()
    def activate(self, x: Array, formula: Function, out: Array) -> None:
        constants = _settings(x.dtype, formula.a, formula.b)
        functions.VALUES[formula.name](x.dtype, (x, constants, out, x.size), thread_count(4 * x.size))

    @covering()
    def activate_grad(self, dy: Array, x: Array, formula: Function, out: Array) -> None:
        constants = _settings(x.dtype, formula.a, formula.b)
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

    @covering()
    def moments(self, x: Array, mean: Array, variance: Array) -> None:
        rows = len(x)
        normalization.moments(x.dtype, (x, mean, variance, rows, x.size // rows), thread_count(x.size))

    @covering()
    def normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array,
    ) -> None:  # fmt: skip
        self._normalize(x, mean, variance, weight, bias, epsilon, out, rectify=False)

    @covering()
    def normalize_relu(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array,
    ) -> None:  # fmt: skip
        self._normalize(x, mean, variance, weight, bias, epsilon, out, rectify=True)

    @covering()
    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, epsilon: float,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        self._normalize_grad(dy, x, None, mean, variance, weight, epsilon, weight_grad, bias_grad, dx)

    @covering()
    def normalize_relu_grad(
        self, dy: Array, x: Array, y: Array, mean: Array, variance: Array, weight: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        self._normalize_grad(dy, x, y, mean, variance, weight, epsilon, weight_grad, bias_grad, dx)

    @covering()
    def fold(
        self, weight: Array, bias: Array | None, mean: Array, variance: Array, scale: Array | None,
        shift: Array | None, epsilon: float, out_weight: Array, out_bias: Array,
    ) -> None:  # fmt: skip
        rows, optional = len(weight), (bias, scale, shift)
        before, by, add = (_or_nothing(array, weight) for array in optional)
        arguments = (
            weight, before, mean, variance, by, add, _settings(weight.dtype, epsilon), out_weight, out_bias,
            rows, weight.size // rows, out_bias.size // rows, *(int(array is not None) for array in optional),
        )  # fmt: skip
        normalization.fold(weight.dtype, arguments, thread_count(weight.size))

    @covering()
    def normalize_groups(
        self, x: Array, weight: Array | None, bias: Array | None, epsilon: float, mean: Array, scale: Array,
        out: Array,
    ) -> None:  # fmt: skip
        (sums,) = self._vectors(np.dtype(np.float64), x.shape[-1])
        arguments = (
            x, _or_nothing(weight, x), _or_nothing(bias, x), _settings(x.dtype, epsilon), mean, scale, sums,
            out, *_groups(x, mean), _rows_of(weight, x), int(weight is not None), int(bias is not None),
        )  # fmt: skip
        normalization.normalize_groups(x.dtype, arguments, thread_count(x.size))

    @covering()
    def normalize_groups_grad(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        groups, rows, N = _groups(x, mean)
        given, each = (dy, x, mean, scale), _rows_of(weight, x)
        if weight_grad is not None:
            grads = weight_grad, _or_nothing(bias_grad, x)
            sizes = weight_grad.size, rows, N, each, int(bias_grad is not None)
            kernel = normalization.normalize_groups_grad_weight
            kernel(x.dtype, (*given, *grads, *sizes), thread_count(x.size))
        if dx is not None:
            (sums,) = self._vectors(np.dtype(np.float64), 2 * N)
            arrays = _or_nothing(weight, x), sums, dx
            arguments = (*given, *arrays, groups, rows, N, each, int(weight is not None))
            normalization.normalize_groups_grad(x.dtype, arguments, thread_count(x.size))

    def dropout(
        self, x: Array, p: float, stream: int, counters: Array, out: Array, channels: bool = False
    ) -> None:
        if not covers(self, (x, out, counters), INDICES):
            super().dropout(x, p, stream, counters, out, channels)
            return
        rows = prod(x.shape[:-1])
        positions = len(x) if channels else rows
        scale = _settings(x.dtype, 1 / (1 - p))
        sizes = positions, rows // positions, x.shape[-1]
        arguments = (x, counters, scale, out, stream, hash_limit(p), *sizes)
        normalization.dropout(x.dtype, arguments, thread_count(2 * x.size))

    def cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if not covers(self, (y, targets, losses, dy), INDICES):
            super().cross_entropy(y, targets, losses, dy, divisor, sums)
            return
        kernel = steps.cross_entropy if targets.ndim == 1 else steps.soft_cross_entropy
        arguments = (y, targets, losses, dy, _settings(y.dtype, divisor), *y.shape)
        kernel(y.dtype, arguments, thread_count(20 * y.size))
        self._tally_if(losses, y, targets, sums)

    def binary_cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        if targets.ndim > 1 or not covers(self, (y, targets, losses, dy), INDICES):
            super().binary_cross_entropy(y, targets, losses, dy, divisor, sums)
            return
        margin = float(np.finfo(y.dtype).eps)
        arguments = (y, targets, losses, dy, _settings(y.dtype, margin, 1 - margin, divisor), *y.shape)
        steps.binary_cross_entropy(y.dtype, arguments, thread_count(20 * y.size))
        self._tally_if(losses, y, targets, sums)

    def class_targets(
        self, targets: Array, class_weights: Array, smoothing: float, ignored: int | None, out: Array,
        shares: Array,
    ) -> None:  # fmt: skip
        arguments = (targets, class_weights, smoothing, ignored, out, shares)
        if targets.ndim > 1 or not covers(self, (targets, class_weights, out, shares), INDICES):
            super().class_targets(*arguments)
            return
        settings = _settings(out.dtype, 1 - smoothing, smoothing / len(out))
        label = (0, 0) if ignored is None else (1, ignored)
        arguments = (targets, class_weights, settings, *label, out, shares, *out.shape)
        steps.class_targets(out.dtype, arguments, thread_count(out.size))

    def tally(
        self, losses: Array, y: Array, targets: Array, sums: Array, shares: Array | None = None
    ) -> None:
        plain = shares is None and targets.ndim == 1 and y.ndim == 2
        if plain and covers(self, (losses, y, targets), INDICES):
            steps.tally(y.dtype, (losses, y, targets, sums, *y.shape))
        else:
            super().tally(losses, y, targets, sums, shares)

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        has_labels = labels is not None
        pair = (labels, chosen_labels) if has_labels else (NO_INDICES, NO_INDICES)
        arguments = (cursor, order, pair[0], rates, chosen, pair[1], rate)
        if covers(self, arguments, INDICES):
            sizes = len(chosen), len(order), len(rates), rate.size
            arrays = (*arguments[:3], rates.reshape(-1), *arguments[4:])
            steps.next_batch(rate.dtype, (*arrays, int(has_labels), *sizes))
        else:
            super().next_batch(cursor, order, labels, rates, chosen, chosen_labels, rate)

    def clip_norm(self, grad: Array, limit: float) -> None:
        graph.call(_clip_norm, grad, limit)

    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: Array,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        has_velocity = velocity is not None
        state = velocity if has_velocity else NOTHING[value.dtype]
        settings = _settings(value.dtype, weight_decay, TINY)
        arguments = (
            value,
            grad,
            state,
            _rate(rate, value),
            _rate(momentum, value),
            settings,
            int(has_velocity),
            int(nesterov),
            value.size,
        )
        steps.sgd(value.dtype, arguments, thread_count(value.size))

    def next_powers(self, powers: Array, factors: tuple[float, float]) -> None:
        graph.call(np.multiply, powers, factors, out=powers)

    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        settings = _settings(value.dtype, *betas, epsilon, weight_decay, TINY)
        arguments = (
            value,
            grad,
            mean,
            square,
            powers,
            _rate(rate, value),
            settings,
            int(decoupled),
            value.size,
        )
        steps.adam(value.dtype, arguments, thread_count(2 * value.size))

    def _normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array, rectify: bool,
    ) -> None:  # fmt: skip
        rows = len(x)
        arguments = (
            x, mean, variance, _or_nothing(weight, x), _or_nothing(bias, x), _settings(x.dtype, epsilon), out,
            rows, x.size // rows, int(weight is not None), int(bias is not None), int(rectify),
        )  # fmt: skip
        normalization.normalize(x.dtype, arguments, thread_count(x.size))

    def _normalize_grad(
        self, dy: Array, x: Array, y: Array | None, mean: Array, variance: Array, weight: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`normalize`, followed by ReLU with the output ``y`` if that is given."""
        rows, optional = len(x), (weight, weight_grad, bias_grad, dx)
        scratch = dx
        if dx is None and y is not None:
            scratch = self.scratch("gradient", dy.shape, dy.dtype)
        arguments = (
            dy, x, _or_nothing(y, x), mean, variance, _or_nothing(weight, x), _settings(x.dtype, epsilon),
            _or_nothing(weight_grad, x), _or_nothing(bias_grad, x), _or_nothing(scratch, x), rows,
            x.size // rows, int(y is not None), *(int(array is not None) for array in optional),
        )  # fmt: skip
        normalization.normalize_grad(x.dtype, arguments, thread_count(2 * x.size))

    def _convolve(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        out: Array,
        window: Window,
        groups: int,
        rectify: bool,
    ) -> None:
        work = _work(weight, out.shape)
        finish = bias is not None or rectify
        if _is_depthwise(weight, groups):
            sizes = (len(out), len(out) // groups, *x.shape[1:], _pool(window, out.shape))
            offsets = _tap_offsets(window, x.shape)
            how = *_bias(bias, out), int(finish), int(rectify), lanes(out.dtype)
            arguments = (outer_product.address(out.dtype), out, x, weight, offsets, *sizes, *how)
            depthwise.convolve(out.dtype, arguments, thread_count(work))
            return
        border = _border(window)
        bordered, rows_first = self._vectors(x.dtype, _bordered_size(x, border), weight.size)
        x = self._bordered(x, border, bordered)
        weight = _by_rows(weight, rows_first)
        shape, offsets = _convolution(x.shape, weight.shape, out.shape, window, groups)
        convolution.convolve(
            out.dtype,
            (
                outer_product.address(out.dtype), out, x, weight, offsets, shape, *_bias(bias, out),
                int(finish), int(rectify), lanes(out.dtype),
            ),
            thread_count(work),
        )  # fmt: skip

    def _grad_weight(
        self, x: Array, dy: Array, y_shape: Shape, out: Array, window: Window, groups: int,
        made_from: tuple[int, Array, Array, Array] | None = None, sums: Array | None = None, pool: Any = None,
    ) -> None:  # fmt: skip
        """The gradient of the weight; ``made_from`` is explained in convolution_grad_weight."""
        parts = thread_count(_work(out, y_shape))
        border = _border(window)
        bordered, shares = self._vectors(x.dtype, _bordered_size(x, border), parts * out.size)
        x = self._bordered(x, border, bordered)
        shape, offsets = _convolution(x.shape, out.shape, y_shape, window, groups)
        nothing = NOTHING[out.dtype]
        made_from = made_from or (ALONE, nothing, nothing, NO_BYTES)
        sums, add_up = (nothing, 0) if sums is None else (sums, 1)
        dy_border, kept = (dy.shape[2] - y_shape[2]) // 2, dy.shape[1]
        arguments = (
            inner_product.address(out.dtype), shares, dy, dy_border, kept, x, offsets, shape, AT_ONCE,
            *made_from, sums, add_up, NO_INDICES if pool is None else pool,
        )  # fmt: skip
        convolution.convolution_grad_weight(out.dtype, arguments, parts)
        convolution.add_weight_shares(out.dtype, (shares, parts, out, *out.shape), thread_count(out.size))

    def _grad_input(
        self, bordered: Array, dy_shape: Shape, weight: Array, turned: Array, out: Array, window: Window,
        groups: int,
    ) -> None:  # fmt: skip
        """The convolution of ``dy``, including its border, with the flipped weights."""
        O, OH, OW, N = dy_shape
        C = len(out)
        KH, KW = window.size
        sizes = (groups, O // groups, C // groups, KH, KW)
        convolution.turn(out.dtype, (weight, turned, *sizes), thread_count(weight.size))
        back = Window(
            window.size,
            dilation=window.dilation,
            padding=_around_gradient(window, window.padding),
            end=_around_gradient(window, window.end),
        )
        width = OW + 2 * _border(back)
        shape, offsets = _convolution((O, OH, width, N), (C, O // groups, KH, KW), out.shape, back, groups)
        convolution.convolve(
            out.dtype,
            (
                outer_product.address(out.dtype), out, bordered, turned, offsets, shape, *_bias(None, out),
                0, 0, lanes(out.dtype),
            ),
            thread_count(_work(weight, dy_shape)),
        )  # fmt: skip

    def _bordered(self, x: Array, border: int, out: Array) -> Array:
        """Write ``x`` with ``border`` columns of zeros on its left and right to ``out``."""
        if not border:
            return x
        C, H, W, N = x.shape
        convolution.with_borders(x.dtype, (x, out, C * H, W * N, border * N), thread_count(x.size))
        return out.reshape(C, H, W + 2 * border, N)

    def _vectors(self, dtype: Any, *sizes: int, name: str = "workspace") -> list[Array]:
        """Vectors of these sizes in the scratch ``name``, each on a 64-byte boundary."""
        unit = 64 // dtype.itemsize
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + -(-size // unit) * unit)
        scratch = self.device.scratch(name, starts[-1] * dtype.itemsize).view(dtype)
        return [scratch[start : start + size] for start, size in zip(starts, sizes, strict=False)]


NO_BYTES, NO_INDICES = np.zeros(1, dtype=BYTES), np.zeros(1, dtype=INDICES)
NOTHING = {dtype: np.zeros(1, dtype=dtype) for dtype in FLOATS}


def _or_nothing(array: Array | None, like: Array) -> Array:
    """``array``, or something to point to if there is none."""
    return NOTHING[like.dtype] if array is None else array


def _groups(x: Array, mean: Array) -> tuple[int, int, int]:
    """The groups of ``x``, the rows of each, and the number of samples."""
    groups, N = mean.shape
    return groups, x.size // (groups * N), N


def _rows_of(weight: Array | None, x: Array) -> int:
    """The rows of ``x`` for each number of ``weight``."""
    return 1 if weight is None else x.size // (x.shape[-1] * weight.size)


def _rate(rate: Any, value: Array) -> Array:
    """The learning rate as an array of one element with the dtype of the values."""
    return np.asarray(rate, dtype=value.dtype).reshape(1)


def _bordered_size(x: Array, border: int) -> int:
    C, H, W, N = x.shape
    return int(C * H * (W + 2 * border) * N) if border else 0


def _by_rows(weight: Array, out: Array) -> Array:
    """(O, C, KH, KW) -> (O, KH, C, KW), in ``out`` where that is another order."""
    if 1 in weight.shape[1:3]:
        return weight
    convolution.by_kernel_rows(weight.dtype, (weight, out, *weight.shape), thread_count(weight.size))
    return out.reshape(weight.shape)


def _is_depthwise(weight: Array, groups: int) -> bool:
    """Whether each output channel sees one of several input channels; the weight is (O, C/groups, KH, KW)."""
    return groups > 1 and bool(weight.shape[1] == 1)


def _work(weight: Array, y_shape: Shape) -> int:
    """The work of a convolution, in elements moved."""
    return int(weight.size) * prod(y_shape[1:]) // MULTIPLICATIONS


def _has_direct_grad_input(window: Window) -> bool:
    """Whether the gradient of the input is a convolution too; with a stride it has gaps."""
    sides = window.padding[1], window.end[1]
    return window.stride == (1, 1) and max(sides) < window.extent[1]


def _gradient_shape(y_shape: Shape, window: Window, input_grad: bool) -> Shape:
    """The shape of a convolution's output gradient, with the border that the input gradient needs.

    If the input gradient is not needed, a few lines per thread are enough.
    """
    O, OH, OW, N = y_shape
    if not input_grad:
        return O * threads.count(), min(OH, max(1, AT_ONCE // (OW * N))), OW, N
    border = _gradient_border(window) if _has_direct_grad_input(window) else 0
    return O, OH, OW + 2 * border, N


def _gradient_border(window: Window) -> int:
    """The border of the output's gradient that the input's gradient needs on its left and right."""
    return max(_around_gradient(window, window.padding)[1], _around_gradient(window, window.end)[1])


def _around_gradient(window: Window, padding: Pair) -> Pair:
    """The padding of the convolution that computes the input's gradient."""
    return window.extent[0] - 1 - padding[0], window.extent[1] - 1 - padding[1]


def _border(window: Window) -> int:
    """The columns of zeros on both sides of a convolution's input: as many as the wider side needs."""
    return max(window.padding[1], window.end[1])


def _bias(bias: Array | None, out: Array) -> tuple[Array, int, int, int]:
    """The bias, and its strides between channels, rows and columns."""
    if bias is None:
        return NOTHING[out.dtype], 0, 0, 0
    if bias.ndim == 1:
        return bias, 1, 0, 0
    return bias, bias.shape[1] * bias.shape[2], bias.shape[2], 1


def _clip_norm(grad: Array, limit: float) -> None:
    factor = limit / (sqrt(np.dot(grad, grad)) + NORM_ROUNDING)
    if factor < 1:
        np.multiply(grad, grad.dtype.type(factor), out=grad)


@lru_cache(maxsize=256)
def _unnormalized(channels: int, has_bytes: bool, dtype: Any) -> tuple[Array, Array]:
    """The shift and the scale of each channel that bring bytes to 0..1 and leave floats as they are."""
    return np.zeros(channels, dtype), np.full(channels, 1 / 255 if has_bytes else 1, dtype)


@lru_cache(maxsize=256)
def _program(program: Program) -> Array:
    return np.array(program, dtype=INDICES)


@lru_cache(maxsize=256)
def _settings(dtype: Any, *values: float) -> Array:
    return np.array(values, dtype=dtype)


@lru_cache(maxsize=256)
def _sampling(sampling: Sampling, dtype: Any) -> tuple[Array, Array]:
    positions, weights = sampling.lists
    return np.array(positions, dtype=INDICES), np.array(weights, dtype=dtype)


@lru_cache(maxsize=256)
def _pool(window: Window, y_shape: Shape) -> Array:
    _, PH, PW, _ = y_shape
    sizes = pooling.Pool(PH, PW, *window.size, *window.stride, *window.padding, *window.dilation)
    return np.array(sizes, dtype=np.intp)


@lru_cache(maxsize=256)
def _tap_offsets(window: Window, x_shape: Shape) -> Array:
    """The offset of each tap from the first one, in one channel without a border."""
    _, _, W, N = x_shape
    i, j = np.ogrid[: window.size[0], : window.size[1]]
    return ((i * window.dilation[0] * W + j * window.dilation[1]) * N).astype(np.intp).ravel()


@lru_cache(maxsize=256)
def _convolution(
    x_shape: Shape, weight_shape: Shape, y_shape: Shape, window: Window, groups: int
) -> tuple[Array, Array]:
    """The sizes of a convolution, and the offset of each tap of each channel from the start of a line.

    ``x_shape`` includes the border; taps are in the order (KH, C, KW) of the kernels' weights.
    """
    C, H, W, N = x_shape
    O, OH, OW, _ = y_shape
    KH, KW = window.size
    sizes = convolution.ConvolutionSizes(
        groups, C // groups, H, W, N, O // groups, OH, OW, KH, KW, *window.stride,
        window.dilation[0], window.padding[0],
    )  # fmt: skip
    i, c, j = np.ogrid[:KH, : C // groups, :KW]
    left = _border(window) - window.padding[1]  # columns of the border that no window sees
    offsets = ((c * H + i * window.dilation[0]) * W + j * window.dilation[1] + left) * N
    return np.array(sizes, dtype=np.intp), offsets.astype(np.intp).ravel()
