"""Every kernel in plain ``xp``: the same lines on every device.

A convolution is a matrix product with the columns of its input (Chellapilla et al. 2006, "High
performance convolutional neural networks for document processing"). The columns of a few output
rows at a time go through one small buffer that stays in fast memory. Since the batch is last, they are
copied along contiguous runs, and the product is the output itself.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

from backends.kernels import augmentation
from backends.kernels.augmentation import GAIN, OFFSET, SHARE, TARGET_SHARE, Pixels, Program
from backends.kernels.contract import MUON_COEFFICIENTS, MUON_EPSILON, NORM_ROUNDING, TINY, Kernels
from backends.kernels.functions import Formulas, Function
from backends.kernels.hashing import hash_limit, scrambled
from backends.kernels.sampling import Sampling
from backends.kernels.window import Window
from backends.memory import Array, Shape, temporaries


class PortableKernels(Kernels):
    """The kernel set for every array module (NumPy or CuPy); the other sets override parts of it."""

    name = "portable"

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
        self.device.matmul(a, b, out, accumulate)  # here, so that a recording stores it as one call

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        (positions,) = temporaries(self.device, (chosen.shape, cursor.dtype))
        xp.add(xp.arange(len(chosen)), cursor[:1], out=positions)
        xp.remainder(positions, len(order), out=positions)
        self.device.take(order, positions, out=chosen)
        if labels is not None:
            self.device.take(labels, chosen, out=chosen_labels)
        row = xp.remainder(cursor[1:], len(rates))
        self.device.take(rates.reshape(len(rates), -1), row, out=rate.reshape(1, -1))
        cursor[:1] += len(chosen)
        cursor[1:] += 1

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        (chosen,) = temporaries(self.device, ((len(indices), *images.shape[1:]), images.dtype))
        self.device.take(images, indices, out=chosen)
        out[...] = xp.moveaxis(chosen, 0, -1)
        if shift is not None and scale is not None:
            xp.subtract(out, shift.reshape(-1, 1, 1, 1), out=out)
            xp.multiply(out, scale.reshape(-1, 1, 1, 1), out=out)
        elif images.dtype == xp.uint8:
            xp.multiply(out, 1 / 255, out=out)

    def next_samples(self, cursor: Array, order: Array, chosen: Array) -> None:
        xp = self.device.xp
        (positions,) = temporaries(self.device, (chosen.shape, cursor.dtype))
        xp.add(xp.arange(len(chosen)), cursor[:1], out=positions)
        xp.remainder(positions, len(order), out=positions)
        self.device.take(order, positions, out=chosen)

    def draw(
        self, samples: Array, keys: Array, program: Program, table: Array, size: tuple[int, int], drawn: Array
    ) -> None:
        xp = self.device.xp
        drawn.fill(0)
        for place in (0, 4, GAIN, SHARE):
            drawn[place] = 1
        draws = augmentation.Draws(xp, samples, keys)
        for number, step in enumerate(program):
            augmentation.change(xp, drawn, step, *draws.row(number, step, table))
        augmentation.share_targets(xp, drawn, size)

    def augment_batch(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        pixels = Pixels(self.device, images, out, reflect, smooth)
        pixels.locate(drawn, indices)
        gain, offset = drawn[GAIN].astype(out.dtype), drawn[OFFSET].astype(out.dtype)
        for number in range(len(out)):
            channel = out[number]
            xp.multiply(pixels.channel(number), gain, out=channel)
            xp.add(channel, offset, out=channel)
            xp.subtract(channel, shift[number : number + 1], out=channel)
            xp.multiply(channel, scale[number : number + 1], out=channel)
        (erased,) = temporaries(self.device, (out.shape[1:], xp.bool_))
        for box in range(1, (len(drawn) - augmentation.BOXES) // 4):
            xp.logical_not(augmentation.inside_box(xp, drawn, box, erased), out=erased)
            xp.multiply(out, erased, out=out)

    def mix_batch(self, x: Array, others: Array, drawn: Array) -> None:
        xp = self.device.xp
        cut, work = temporaries(self.device, (x.shape[1:], xp.bool_), (x.shape, x.dtype))
        augmentation.inside_box(xp, drawn, 0, cut)
        share = drawn[SHARE].astype(x.dtype)
        xp.multiply(others, 1 - share, out=work)
        xp.multiply(x, share, out=x)
        xp.add(x, work, out=x)
        xp.copyto(x, others, where=cut)

    def mix_targets(self, own: Array, others: Array, drawn: Array, out: Array) -> None:
        xp = self.device.xp
        share = drawn[TARGET_SHARE].astype(out.dtype)
        (work,) = temporaries(self.device, (out.shape, out.dtype))
        for targets, part, place in ((own, share, out), (others, 1 - share, work)):
            if targets.ndim == 1:
                self._one_hot(targets, place)
            else:
                place[...] = targets
            xp.multiply(place, part, out=place)
        xp.add(out, work, out=out)

    def copy(self, x: Array, out: Array) -> None:
        out[...] = x

    def add(self, x: Array, y: Array, out: Array) -> None:
        self.device.xp.add(x, y, out=out)

    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        y += _along_rows(bias, y)
        if rectify:
            self.relu(y, y)

    def sum_rows(self, x: Array, out: Array) -> None:
        self.device.xp.sum(x.reshape(out.size, -1), axis=1, out=out.reshape(-1))

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

    def prelu(self, x: Array, weight: Array, out: Array) -> None:
        xp = self.device.xp
        (work,) = temporaries(self.device, (x.shape, x.dtype))
        xp.clip(x, -xp.inf, 0, out=work)
        xp.multiply(work, _along_rows(weight, x), out=work)
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
            xp.multiply(dy, _along_rows(weight, x), out=dx)
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

    def moments(self, x: Array, mean: Array, variance: Array) -> None:
        xp = self.device.xp
        x = as_matrix(x)
        (work,) = temporaries(self.device, (x.shape, x.dtype))
        xp.mean(x, axis=1, out=mean)
        xp.subtract(x, mean[:, None], out=work)
        xp.square(work, out=work)
        xp.mean(work, axis=1, out=variance)

    def track(
        self, running_mean: Array, running_variance: Array, batches: Array, mean: Array, variance: Array,
        momentum: float | None, unbiased: float,
    ) -> None:  # fmt: skip
        batches += 1
        weight = 1 / batches.astype(mean.dtype) if momentum is None else momentum
        running_mean += weight * (mean - running_mean)
        running_variance += weight * (unbiased * variance - running_variance)

    def normalize(
        self, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, out: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        x, out = as_matrix(x), as_matrix(out)
        scale = 1 / xp.sqrt(variance + epsilon)
        if weight is not None:
            scale *= weight
        xp.subtract(x, mean[:, None], out=out)
        xp.multiply(out, scale[:, None], out=out)
        if bias is not None:
            xp.add(out, bias[:, None], out=out)

    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, epsilon: float,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        dy, x = as_matrix(dy), as_matrix(x)
        normalized, product = temporaries(self.device, *[(x.shape, x.dtype)] * 2)
        scale = 1 / xp.sqrt(variance + epsilon)
        xp.subtract(x, mean[:, None], out=normalized)
        xp.multiply(normalized, scale[:, None], out=normalized)
        xp.multiply(dy, normalized, out=product)
        along, total = xp.sum(product, axis=1), xp.sum(dy, axis=1)
        if weight_grad is not None:
            weight_grad[...] = along
        if bias_grad is not None:
            bias_grad[...] = total
        if dx is None:
            return
        # dx = scale * weight * (dy - mean(dy) - normalized * mean(dy * normalized))
        dx = as_matrix(dx)
        xp.multiply(normalized, (along / x.shape[1])[:, None], out=product)
        xp.subtract(dy, product, out=dx)
        xp.subtract(dx, (total / x.shape[1])[:, None], out=dx)
        xp.multiply(dx, (scale if weight is None else scale * weight)[:, None], out=dx)

    def fold(
        self, weight: Array, bias: Array | None, mean: Array, variance: Array, scale: Array | None,
        shift: Array | None, epsilon: float, out_weight: Array, out_bias: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        factor = 1 / xp.sqrt(variance + epsilon)
        if scale is not None:
            factor *= scale
        xp.multiply(as_matrix(weight), factor[:, None], out=as_matrix(out_weight))
        out_bias = as_matrix(out_bias)
        if bias is None:
            out_bias.fill(0)
        else:
            out_bias[...] = as_matrix(bias)
        xp.subtract(out_bias, mean[:, None], out=out_bias)
        xp.multiply(out_bias, factor[:, None], out=out_bias)
        if shift is not None:
            xp.add(out_bias, shift[:, None], out=out_bias)

    def normalize_groups(
        self, x: Array, weight: Array | None, bias: Array | None, epsilon: float, mean: Array, scale: Array,
        out: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        shape = len(mean), -1, x.shape[-1]
        x, grouped = x.reshape(shape), out.reshape(shape)
        (square,) = temporaries(self.device, (x.shape, x.dtype))
        xp.mean(x, axis=1, out=mean)
        xp.subtract(x, mean[:, None], out=grouped)
        xp.square(grouped, out=square)
        xp.mean(square, axis=1, out=scale)
        xp.add(scale, epsilon, out=scale)
        xp.sqrt(scale, out=scale)
        xp.divide(1, scale, out=scale)
        xp.multiply(grouped, scale[:, None], out=grouped)
        if weight is not None:
            xp.multiply(out, _along_rows(weight, out), out=out)
        if bias is not None:
            xp.add(out, _along_rows(bias, out), out=out)

    def normalize_groups_grad(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        shape = len(mean), -1, x.shape[-1]
        x, grouped = x.reshape(shape), dy.reshape(shape)
        normalized, product = temporaries(self.device, *[(x.shape, x.dtype)] * 2)
        xp.subtract(x, mean[:, None], out=normalized)
        xp.multiply(normalized, scale[:, None], out=normalized)
        if weight_grad is not None:
            xp.multiply(grouped, normalized, out=product)
            self.sum_rows(product, weight_grad)
        if bias_grad is not None:
            self.sum_rows(dy, bias_grad)
        if dx is None:
            return
        # dx = scale * (g - mean(g) - normalized * mean(g * normalized)), where g = dy * weight
        xp.multiply(dy, 1 if weight is None else _along_rows(weight, dy), out=dx)
        dx = dx.reshape(shape)
        xp.multiply(dx, normalized, out=product)
        xp.multiply(normalized, xp.mean(product, axis=1)[:, None], out=normalized)
        xp.subtract(dx, xp.mean(dx, axis=1)[:, None], out=dx)
        xp.subtract(dx, normalized, out=dx)
        xp.multiply(dx, scale[:, None], out=dx)

    def dropout(
        self, x: Array, p: float, stream: int, counters: Array, out: Array, channels: bool = False
    ) -> None:
        xp = self.device.xp
        positions = len(x) if channels else prod(x.shape[:-1])
        shape = positions, -1, x.shape[-1]
        x, out = x.reshape(shape), out.reshape(shape)
        chosen = positions, x.shape[-1]
        bits, work, kept = temporaries(
            self.device, (chosen, xp.uint32), (chosen, xp.uint32), (chosen, xp.bool_)
        )
        numbers, samples = (xp.arange(length, dtype=xp.uint32) for length in chosen)
        update, first = counters[:1].astype(xp.uint32), counters[1:].astype(xp.uint32)
        samples = scrambled(xp, samples + first + scrambled(xp, update ^ xp.uint32(stream)))
        xp.bitwise_xor(scrambled(xp, numbers)[:, None], samples, out=bits)
        bits[...] = scrambled(xp, bits, work)
        xp.greater_equal(bits, xp.uint32(hash_limit(p)), out=kept)
        xp.multiply(x, kept[:, None], out=out)
        xp.multiply(out, 1 / (1 - p), out=out)

    def count_update(self, counters: Array) -> None:
        counters[:1] += 1
        counters[1:] = 0

    def count_samples(self, counters: Array, samples: int) -> None:
        counters[1:] += samples

    def cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        xp = self.device.xp
        (shifted,) = temporaries(self.device, (y.shape, y.dtype))
        xp.subtract(y, xp.max(y, axis=0, keepdims=True), out=shifted)
        xp.exp(shifted, out=dy)
        total = xp.sum(dy, axis=0)
        xp.divide(dy, total, out=dy)
        if targets.ndim == 1:
            picked = xp.take_along_axis(shifted, targets[None], axis=0)[0]
            xp.subtract(xp.log(total), picked, out=losses)
            self._one_hot(targets, shifted)
            xp.subtract(dy, shifted, out=dy)
        else:
            xp.subtract(xp.log(total), shifted, out=shifted)
            xp.copyto(shifted, 0, where=targets == 0)  # it may be infinite there
            xp.multiply(shifted, targets, out=shifted)
            xp.sum(shifted, axis=0, out=losses)
            xp.multiply(dy, xp.sum(targets, axis=0), out=dy)
            xp.subtract(dy, targets, out=dy)
        xp.divide(dy, divisor, out=dy)
        self._tally_if(losses, y, targets, sums)

    def focal(
        self, y: Array, targets: Array, gamma: float, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        log_p, p, rest, power, t = temporaries(self.device, *[(y.shape, y.dtype)] * 5)
        xp.subtract(y, xp.max(y, axis=0, keepdims=True), out=log_p)
        xp.exp(log_p, out=p)
        xp.subtract(log_p, xp.log(xp.sum(p, axis=0)), out=log_p)
        xp.exp(log_p, out=p)
        xp.expm1(log_p, out=rest)
        xp.negative(rest, out=rest)  # 1 - p, exact near 0
        xp.power(rest, gamma, out=power)
        self._dense(targets, t)
        xp.multiply(power, t, out=power)
        xp.copyto(log_p, 0, where=power == 0)  # it may be infinite there
        xp.multiply(power, log_p, out=dy)
        xp.sum(dy, axis=0, out=losses)
        xp.negative(losses, out=losses)
        # a = t (gamma p (1 - p)^(gamma - 1) log p - (1 - p)^gamma), dy = a - p sum(a)
        xp.multiply(dy, p, out=dy)
        xp.multiply(dy, gamma, out=dy)
        xp.divide(dy, xp.where(rest == 0, 1, rest), out=dy)
        xp.subtract(dy, power, out=dy)
        xp.multiply(p, xp.sum(dy, axis=0), out=p)
        xp.subtract(dy, p, out=dy)
        xp.divide(dy, divisor, out=dy)
        self._tally_if(losses, y, targets, sums)

    def binary_cross_entropy(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        xp = self.device.xp
        p, t, work, log_q = temporaries(self.device, *[(y.shape, y.dtype)] * 4)
        margin = float(xp.finfo(y.dtype).eps)
        xp.clip(y, margin, 1 - margin, out=p)
        self._dense(targets, t)
        # t log p + (1 - t) log(1 - p)
        xp.log(p, out=work)
        xp.multiply(work, t, out=work)
        xp.subtract(1, p, out=log_q)
        xp.log(log_q, out=log_q)
        xp.subtract(1, t, out=dy)
        xp.multiply(log_q, dy, out=log_q)
        xp.add(work, log_q, out=work)
        self._mean(work, losses)
        xp.negative(losses, out=losses)
        # (p - t) / (p (1 - p)) / classes
        xp.subtract(1, p, out=work)
        xp.multiply(work, p, out=work)
        xp.subtract(p, t, out=dy)
        xp.divide(dy, work, out=dy)
        xp.divide(dy, as_columns(y).shape[0] * divisor, out=dy)
        self._tally_if(losses, y, targets, sums)

    def logistic_loss(
        self, y: Array, targets: Array, positive: Array, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        log_p, log_q, ones, zeros, work = temporaries(self.device, *[(y.shape, y.dtype)] * 5)
        self._dense(targets, ones)
        xp.subtract(1, ones, out=zeros)
        xp.multiply(ones, positive.reshape(-1, *[1] * (y.ndim - 1)), out=ones)
        # log p = min(y, 0) - log(1 + exp(-|y|)), and log(1 - p) is that of -y
        xp.absolute(y, out=work)
        xp.negative(work, out=work)
        xp.exp(work, out=work)
        xp.log1p(work, out=work)
        xp.clip(y, -xp.inf, 0, out=log_p)
        xp.subtract(log_p, work, out=log_p)
        xp.clip(y, 0, xp.inf, out=log_q)
        xp.add(log_q, work, out=log_q)
        xp.negative(log_q, out=log_q)
        # dy = zeros * p - ones * (1 - p)
        xp.exp(log_p, out=work)
        xp.multiply(work, zeros, out=dy)
        xp.exp(log_q, out=work)
        xp.multiply(work, ones, out=work)
        xp.subtract(dy, work, out=dy)
        xp.divide(dy, as_columns(y).shape[0] * divisor, out=dy)
        xp.multiply(log_p, ones, out=log_p)
        xp.multiply(log_q, zeros, out=log_q)
        xp.add(log_p, log_q, out=log_p)
        self._mean(log_p, losses)
        xp.negative(losses, out=losses)
        self._tally_if(losses, y, targets, sums)

    def squared_error(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        xp = self.device.xp
        (square,) = temporaries(self.device, (y.shape, y.dtype))
        self._dense(targets, dy)
        xp.subtract(y, dy, out=dy)
        xp.square(dy, out=square)
        self._mean(square, losses)
        xp.multiply(dy, 2 / as_columns(y).shape[0], out=dy)
        xp.divide(dy, divisor, out=dy)
        self._tally_if(losses, y, targets, sums)

    def absolute_error(
        self, y: Array, targets: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        xp = self.device.xp
        (size,) = temporaries(self.device, (y.shape, y.dtype))
        self._dense(targets, dy)
        xp.subtract(y, dy, out=dy)
        xp.absolute(dy, out=size)
        self._mean(size, losses)
        xp.sign(dy, out=dy)
        xp.divide(dy, as_columns(y).shape[0] * divisor, out=dy)
        self._tally_if(losses, y, targets, sums)

    def huber(
        self, y: Array, targets: Array, delta: float, losses: Array, dy: Array, divisor: int,
        sums: Array | None = None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        size, near = temporaries(self.device, *[(y.shape, y.dtype)] * 2)
        self._dense(targets, dy)
        xp.subtract(y, dy, out=dy)
        # n (d - n / 2) for n = min(d, delta)
        xp.absolute(dy, out=size)
        xp.clip(size, 0, delta, out=near)
        xp.subtract(size, near / 2, out=size)
        xp.multiply(size, near, out=size)
        self._mean(size, losses)
        xp.clip(dy, -delta, delta, out=dy)
        xp.divide(dy, as_columns(y).shape[0] * divisor, out=dy)
        self._tally_if(losses, y, targets, sums)

    def class_targets(
        self, targets: Array, class_weights: Array, smoothing: float, ignored: int | None, out: Array,
        shares: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        weights = class_weights[:, None]
        self._dense(targets, out)
        if targets.ndim == 1:
            xp.sum(out * weights, axis=0, out=shares)
        else:
            shares.fill(1)
        xp.multiply(out, 1 - smoothing, out=out)
        xp.add(out, smoothing / len(out), out=out)
        xp.multiply(out, weights, out=out)
        if targets.ndim == 1:
            factor = xp.where((targets >= 0) & (targets < len(out)), 1.0, xp.nan)
            if ignored is not None:
                factor = xp.where(targets == ignored, 0.0, factor)
            xp.multiply(out, factor, out=out)
            xp.multiply(shares, factor, out=shares)

    def weigh(self, losses: Array, dy: Array, weights: Array) -> None:
        self.device.xp.multiply(losses, weights, out=losses)
        self.device.xp.multiply(dy, weights, out=dy)

    def add_up(self, shares: Array, total: Array) -> None:
        total += self.device.xp.sum(shares)

    def divide(self, x: Array, total: Array) -> None:
        xp = self.device.xp
        xp.multiply(x, total != 0, out=x)
        xp.divide(x, xp.where(total == 0, 1, total), out=x)

    def tally(
        self, losses: Array, y: Array, targets: Array, sums: Array, shares: Array | None = None
    ) -> None:
        xp = self.device.xp
        sums[0] += xp.sum(losses, dtype=xp.float64)
        sums[2] += len(losses)
        if shares is not None:
            sums[3] += xp.sum(shares, dtype=xp.float64)
            sums[4] += xp.sum(shares != 0)
        if y.ndim == 2:
            right = xp.equal(xp.argmax(y, axis=0), _labels_of(xp, targets))
            sums[1] += xp.sum(right if shares is None else right & (shares != 0))

    def count_top(self, y: Array, targets: Array, k: int, sums: Array, shares: Array | None = None) -> None:
        xp = self.device.xp
        labels, counted = self._counted(y, targets, shares)
        positions = xp.arange(len(y))[:, None]
        own = xp.take_along_axis(y, labels[None], axis=0)
        higher = (y > own) | (y != y) | ((y == own) & (positions < labels))
        sums[0] += xp.sum((xp.sum(higher, axis=0) < k) & counted)
        sums[1] += xp.sum(counted)

    def count_pairs(self, y: Array, targets: Array, counts: Array, shares: Array | None = None) -> None:
        xp = self.device.xp
        labels, counted = self._counted(y, targets, shares)
        positions = xp.arange(len(y))[:, None]
        rows = ((positions == labels) & counted).astype(counts.dtype)
        columns = (positions == xp.argmax(y, axis=0)).astype(counts.dtype)
        self.matmul(rows, columns.T, out=counts, accumulate=True)

    def count_confidence(self, p: Array, targets: Array, sums: Array, shares: Array | None = None) -> None:
        xp = self.device.xp
        labels, counted = self._counted(p, targets, shares)
        highest, bins = xp.max(p, axis=0).astype(sums.dtype), sums.shape[1]
        places = xp.clip(xp.ceil(highest * bins) - 1, 0, bins - 1)
        chosen = ((xp.arange(bins)[:, None] == places) & counted).astype(sums.dtype)
        right = xp.equal(xp.argmax(p, axis=0), labels)
        sums[0] += xp.sum(chosen, axis=1)
        sums[1] += xp.sum(chosen * highest, axis=1)
        sums[2] += xp.sum(chosen * right, axis=1)

    def clip_norm(self, grad: Array, limit: float) -> None:
        xp = self.device.xp
        (square,) = temporaries(self.device, (grad.shape, grad.dtype))
        xp.multiply(grad, grad, out=square)
        norm = xp.sqrt(xp.sum(square, keepdims=True))
        xp.multiply(grad, xp.fmin(limit / (norm + NORM_ROUNDING), 1), out=grad)

    def clear(self, x: Array) -> None:
        x.fill(0)

    def scale(self, x: Array, factor: float, out: Array) -> None:
        self.device.xp.multiply(x, factor, out=out)

    def clip_value(self, grad: Array, limit: float) -> None:
        self.device.xp.clip(grad, -limit, limit, out=grad)

    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: Array,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        change, work, mask = self._for_update(value)
        grad = self._decayed(value, grad, weight_decay, change)
        step = grad
        if velocity is not None:
            xp.multiply(velocity, momentum, out=velocity)
            xp.add(velocity, grad, out=velocity)
            self._flush(velocity, work, mask)
            step = velocity
            if nesterov:
                xp.multiply(velocity, momentum, out=work)
                step = xp.add(work, grad, out=work)
        xp.multiply(step, rate, out=change)
        xp.subtract(value, change, out=value)

    def next_powers(self, powers: Array, factors: tuple[float, float]) -> None:
        for index, factor in enumerate(factors):
            powers[index] *= factor

    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        change, work, mask = self._for_update(value)
        if decoupled:
            xp.multiply(value, 1 - rate * weight_decay, out=value)
        else:
            grad = self._decayed(value, grad, weight_decay, change)
        self._average_moments(grad, mean, square, betas, work, mask)
        xp.divide(square, 1 - powers[1], out=work)
        xp.sqrt(work, out=work)
        xp.add(work, epsilon, out=work)
        xp.divide(mean, work, out=work)
        xp.multiply(work, rate / (1 - powers[0]), out=work)
        xp.subtract(value, work, out=value)

    def _average_moments(
        self, grad: Array, mean: Array, square: Array, betas: tuple[float, float], work: Array, mask: Array
    ) -> None:
        """Move the averages of the gradient and of its square."""
        xp = self.device.xp
        for moment, beta in zip((mean, square), betas, strict=True):
            xp.multiply(grad, 1 - beta, out=work)
            if moment is square:
                xp.multiply(work, grad, out=work)
            xp.multiply(moment, beta, out=moment)
            xp.add(moment, work, out=moment)
            self._flush(moment, work, mask)

    def rmsprop(
        self, value: Array, grad: Array, square: Array, mean: Array | None, velocity: Array | None,
        rate: Array, alpha: float, epsilon: float, momentum: float, weight_decay: float,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        change, work, mask = self._for_update(value)
        grad = self._decayed(value, grad, weight_decay, change)
        xp.multiply(grad, 1 - alpha, out=work)
        if mean is not None:
            xp.multiply(mean, alpha, out=mean)
            xp.add(mean, work, out=mean)
        xp.multiply(work, grad, out=work)
        xp.multiply(square, alpha, out=square)
        xp.add(square, work, out=square)
        self._flush(square, work, mask)
        if mean is None:
            xp.sqrt(square, out=work)
        else:
            xp.multiply(mean, mean, out=work)
            xp.subtract(square, work, out=work)
            xp.maximum(work, 0, out=work)  # which rounding may leave below 0
            xp.sqrt(work, out=work)
        xp.add(work, epsilon, out=work)
        xp.divide(grad, work, out=change)
        if velocity is not None:
            xp.multiply(velocity, momentum, out=velocity)
            xp.add(velocity, change, out=velocity)
            self._flush(velocity, work, mask)
            change[...] = velocity
        xp.multiply(change, rate, out=change)
        xp.subtract(value, change, out=value)

    def adagrad(
        self, value: Array, grad: Array, square: Array, rate: Array, epsilon: float, weight_decay: float
    ) -> None:
        xp = self.device.xp
        change, work, mask = self._for_update(value)
        grad = self._decayed(value, grad, weight_decay, change)
        xp.multiply(grad, grad, out=work)
        xp.add(square, work, out=square)
        self._flush(square, work, mask)
        xp.sqrt(square, out=work)
        xp.add(work, epsilon, out=work)
        xp.divide(grad, work, out=work)
        xp.multiply(work, rate, out=work)
        xp.subtract(value, work, out=value)

    def next_nadam(self, progress: Array, beta: float, beta_square: float, decay: float) -> None:
        step, product, present, following, power = (progress[at : at + 1] for at in range(5))
        step += 1
        for mu, ahead in ((present, 0), (following, 1)):
            mu[...] = beta * (1 - 0.5 * 0.96 ** ((step + ahead) * decay))
        product *= present
        power *= beta_square

    def nadam(
        self, value: Array, grad: Array, mean: Array, square: Array, progress: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        change, work, mask = self._for_update(value)
        product, present, following, power = (progress[at : at + 1] for at in range(1, 5))
        grad = self._decayed(value, grad, weight_decay, change)
        self._average_moments(grad, mean, square, betas, work, mask)
        xp.divide(square, 1 - power, out=work)
        xp.sqrt(work, out=work)
        xp.add(work, epsilon, out=work)
        xp.multiply(grad, rate * (1 - present) / (1 - product), out=change)
        xp.divide(change, work, out=change)
        xp.subtract(value, change, out=value)
        xp.multiply(mean, rate * following / (1 - product * following), out=change)
        xp.divide(change, work, out=change)
        xp.subtract(value, change, out=value)

    def lion(
        self, value: Array, grad: Array, mean: Array, rate: Array, betas: tuple[float, float],
        weight_decay: float,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        change, work, mask = self._for_update(value)
        xp.multiply(value, 1 - rate * weight_decay, out=value)
        xp.multiply(grad, 1 - betas[0], out=change)
        xp.multiply(mean, betas[0], out=work)
        xp.add(change, work, out=change)
        xp.sign(change, out=change)
        xp.multiply(change, rate, out=change)
        xp.subtract(value, change, out=value)
        xp.multiply(mean, betas[1], out=mean)
        xp.multiply(grad, 1 - betas[1], out=work)
        xp.add(mean, work, out=mean)
        self._flush(mean, work, mask)

    def lamb(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        change, work, mask = self._for_update(value)
        self._average_moments(grad, mean, square, betas, work, mask)
        xp.divide(square, 1 - powers[1], out=work)
        xp.sqrt(work, out=work)
        xp.add(work, epsilon, out=work)
        xp.divide(mean, 1 - powers[0], out=change)
        xp.divide(change, work, out=change)
        xp.multiply(value, weight_decay, out=work)
        xp.add(change, work, out=change)
        norms = []
        for vector in (value, change):
            xp.multiply(vector, vector, out=work)
            norms.append(xp.sqrt(xp.sum(work, keepdims=True)))
        trust = xp.where(norms[0] * norms[1] > 0, norms[0] / xp.maximum(norms[1], TINY), 1)
        xp.multiply(change, rate * trust.reshape(1), out=change)
        xp.subtract(value, change, out=value)

    def muon(
        self, value: Array, grad: Array, velocity: Array, rate: Array, momentum: Array, nesterov: bool,
        weight_decay: float, steps: int,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        rows, columns = value.shape
        _, work, mask = self._for_update(value)
        xp.multiply(velocity, momentum, out=velocity)
        xp.add(velocity, grad, out=velocity)
        self._flush(velocity, work, mask)
        update, product = (self.scratch(f"muon {name}", value.shape, value.dtype) for name in "xy")
        update[...] = velocity
        if nesterov:
            xp.multiply(velocity, momentum, out=update)
            xp.add(update, grad, out=update)
        self._orthogonalize(update, product, steps)
        xp.multiply(value, 1 - rate * weight_decay, out=value)
        xp.multiply(update, rate * max(1, rows / columns) ** 0.5, out=update)
        xp.subtract(value, update, out=value)

    def _orthogonalize(self, x: Array, product: Array, steps: int) -> None:
        """``x`` = nearly the orthogonal matrix nearest to it, by Newton-Schulz iterations (Jordan 2024)."""
        xp = self.device.xp
        side = min(x.shape)
        gram, square = (self.scratch(f"muon {name}", (side, side), x.dtype) for name in ("gram", "square"))
        xp.multiply(x, x, out=product)
        xp.divide(x, xp.maximum(xp.sqrt(xp.sum(product)), MUON_EPSILON), out=x)
        tall = len(x) > side
        a, b, c = MUON_COEFFICIENTS
        for _ in range(steps):
            self.device.matmul(x.T, x, out=gram) if tall else self.device.matmul(x, x.T, out=gram)
            self.device.matmul(gram, gram, out=square)
            xp.multiply(gram, b, out=gram)
            xp.multiply(square, c, out=square)
            xp.add(gram, square, out=gram)
            self.device.matmul(x, gram, out=product) if tall else self.device.matmul(gram, x, out=product)
            xp.multiply(x, a, out=x)
            xp.add(x, product, out=x)

    def average(self, value: Array, mean: Array, count: Array, decay: float) -> None:
        xp = self.device.xp
        (work,) = temporaries(self.device, (value.shape, value.dtype))
        weight = xp.where(count > 0, 1 - decay, 1).astype(value.dtype)
        xp.subtract(value, mean, out=work)
        xp.multiply(work, weight, out=work)
        xp.add(mean, work, out=mean)

    def count_average(self, count: Array) -> None:
        count += 1

    def lookahead(self, value: Array, slow: Array, count: Array, every: int, alpha: float) -> None:
        xp = self.device.xp
        (work,) = temporaries(self.device, (value.shape, value.dtype))
        due = xp.remainder(count + 1, every) == 0
        xp.subtract(value, slow, out=work)
        xp.multiply(work, xp.where(due, alpha, 0).astype(value.dtype), out=work)
        xp.add(slow, work, out=slow)
        value[...] = xp.where(due, slow, value)

    def _for_update(self, value: Array) -> list[Array]:
        """Two temporary arrays like ``value``, and a mask."""
        parts = [(value.shape, value.dtype)] * 2
        return temporaries(self.device, *parts, (value.shape, self.device.xp.bool_))

    def _decayed(self, value: Array, grad: Array, weight_decay: float, change: Array) -> Array:
        """The gradient with the weight decay, which then is in ``change``."""
        if not weight_decay:
            return grad
        self.device.xp.multiply(value, weight_decay, out=change)
        return self.device.xp.add(change, grad, out=change)

    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        border, columns = self._convolution_scratch(x, out, window, groups)
        x = with_border(x, window, 0, border)
        for x_g, w_g, y_g in split(groups, x, weight, out):
            w, y = as_matrix(w_g), as_matrix(y_g)
            for run, block in self._column_blocks(x_g, out, window, columns):
                self.matmul(w, block, out=y[:, run])

    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        border, columns = self._convolution_scratch(x, dy, window, groups)
        x = with_border(x, window, 0, border)
        for x_g, dy_g, dw_g in split(groups, x, dy, out):
            dy_matrix, dw = as_matrix(dy_g), as_matrix(dw_g)
            for run, block in self._column_blocks(x_g, dy, window, columns):
                self.matmul(dy_matrix[:, run], block.T, out=dw, accumulate=run.start > 0)

    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        xp = self.device.xp
        OW, N = dy.shape[2:]
        border, columns = self._convolution_scratch(out, dy, window, groups)
        dx = border if window.has_padding else out
        dx.fill(0)
        for dy_g, w_g, dx_g in split(groups, dy, weight, dx):
            dy_matrix, w = as_matrix(dy_g), as_matrix(w_g)
            for first, rows in self._row_blocks(w.shape[1], dy):
                run = slice(first * OW * N, (first + rows) * OW * N)
                block = columns[: w.shape[1] * rows * OW * N].reshape(w.shape[1], -1)
                self.matmul(w.T, dy_matrix[:, run], out=block)
                block = block.reshape(len(dx_g), *window.size, rows, OW, N)
                below = dx_g[:, first * window.stride[0] :]
                for i, j in window.tap_positions:
                    seen = window.tap(below, i, j, rows, OW)
                    xp.add(seen, block[:, i, j], out=seen)
        if dx is border:
            out[...] = without_border(dx, window, out.shape)

    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        xp = self.device.xp
        border, here, better, nan, candidate = temporaries(
            self.device,
            (border_shape(x, window), x.dtype),
            (out.shape, x.dtype),
            (out.shape, xp.bool_),
            (out.shape, xp.bool_),
            (out.shape, xp.uint8 if winner is None else winner.dtype),
        )
        height, width = x.shape[1:3]
        x = with_border(x, window, -xp.inf, border)
        if winner is not None:
            winner.fill(0)
        if winner is not None and window.has_padding:
            for tap, (i, j) in reversed(list(enumerate(window.tap_positions))):
                rows, columns = window.inside(0, i, height), window.inside(1, j, width)
                winner[:, rows, columns] = tap  # to begin with the first that sees no padding
        for tap, (i, j) in enumerate(window.tap_positions):
            seen = window.tap(x, i, j, *out.shape[1:3])
            if tap == 0:
                out[...] = seen
                continue
            here[...] = seen  # one slow walk over the strided view, then fast ones
            if winner is not None:
                xp.greater(here, out, out=better)
                xp.not_equal(here, here, out=nan)
                xp.logical_or(better, nan, out=better)
                xp.multiply(better.view(xp.uint8), winner.dtype.type(tap), out=candidate)
                xp.maximum(winner, candidate, out=winner)  # taps only rise: the last better one stays
            xp.maximum(out, here, out=out)

    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        xp = self.device.xp
        border, mask, share = temporaries(
            self.device, (border_shape(out, window), dy.dtype), (dy.shape, xp.bool_), (dy.shape, dy.dtype)
        )
        dx = border if window.has_padding else out
        dx.fill(0)
        for tap, (i, j) in enumerate(window.tap_positions):
            xp.equal(winner, tap, out=mask)
            seen = window.tap(dx, i, j, *dy.shape[1:3])
            if window.is_disjoint:
                xp.multiply(dy, mask, out=seen)
            else:
                xp.multiply(dy, mask, out=share)
                xp.add(seen, share, out=seen)
        if dx is border:
            out[...] = without_border(dx, window, out.shape)

    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        C, _, W, N = x.shape
        OH = out.shape[1]
        between, work = temporaries(
            self.device,
            ((C, OH, W, N), x.dtype),
            ((C * max(rows.longest * W, OH * columns.longest) * N,), x.dtype),
        )
        between.fill(0)
        for to, of, weight in rows.runs:
            self._add_scaled(x[:, of], weight, between[:, to], work)
        out.fill(0)
        for to, of, weight in columns.runs:
            self._add_scaled(between[:, :, of], weight, out[:, :, to], work)

    def _add_scaled(self, x: Array, weight: float, out: Array, work: Array) -> None:
        """``out += weight * x``; axes of ``x`` may have the length 1."""
        xp = self.device.xp
        if weight != 1:
            x = xp.multiply(x, weight, out=work[: x.size].reshape(x.shape))
        xp.add(out, x, out=out)

    def _formulas(self, x: Array, formula: Function) -> Formulas:
        shapes = (x.shape, x.dtype), (x.shape, x.dtype), (x.shape, self.device.xp.bool_)
        return Formulas(self.device, formula, *temporaries(self.device, *shapes))

    def _one_hot(self, labels: Array, out: Array) -> None:
        """1 where the label is, 0 elsewhere: (N,) -> (classes, N)."""
        xp = self.device.xp
        xp.equal(xp.arange(len(out))[:, None], labels, out=out)

    def _dense(self, targets: Array, out: Array) -> None:
        """Labels as one-hot columns; numbers as they are."""
        if targets.ndim == 1:
            self._one_hot(targets, out)
        else:
            out[...] = targets

    def _mean(self, x: Array, out: Array) -> None:
        """The mean of each sample: (..., N) -> (N,)."""
        self.device.xp.mean(as_columns(x), axis=0, out=out)

    def _tally_if(self, losses: Array, y: Array, targets: Array, sums: Array | None) -> None:
        if sums is not None:
            self.tally(losses, y, targets, sums)

    def _counted(self, y: Array, targets: Array, shares: Array | None) -> tuple[Array, Array]:
        """The label of each sample, or 0 if it is no class; and whether the sample counts."""
        xp = self.device.xp
        labels = _labels_of(xp, targets)
        counted = (labels >= 0) & (labels < len(y))
        if shares is not None:
            counted &= shares != 0
        return xp.where(counted, labels, xp.zeros_like(labels)), counted

    def _flush(self, state: Array, work: Array, mask: Array) -> None:
        """Set what is too small to matter to zero, before it becomes subnormal."""
        xp = self.device.xp
        xp.absolute(state, out=work)
        xp.greater_equal(work, TINY, out=mask)
        xp.multiply(state, mask, out=state)

    def _convolution_scratch(self, x: Array, y: Array, window: Window, groups: int) -> list[Array]:
        """Room for ``x`` with its border, and for one block of columns."""
        depth = x.shape[0] // groups * window.taps
        rows = next(self._row_blocks(depth, y))[1]
        return temporaries(
            self.device,
            (border_shape(x, window), x.dtype),
            ((depth * rows * prod(y.shape[2:]),), x.dtype),
        )

    def _row_blocks(self, depth: int, y: Array) -> Iterator[tuple[int, int]]:
        """(first, count) of the output rows whose columns, ``depth`` deep, fit the buffer together."""
        _, OH, OW, N = y.shape
        most = max(1, self.device.column_bytes // (depth * OW * N * y.dtype.itemsize))
        for first in range(0, OH, most):
            yield first, min(most, OH - first)

    def _column_blocks(
        self, x: Array, y: Array, window: Window, columns: Array
    ) -> Iterator[tuple[slice, Array]]:
        """For each block of output rows: their run in ``y`` as a matrix, and their columns."""
        xp = self.device.xp
        C = len(x)
        _, OH, OW, N = y.shape
        c, h, w, n = x.strides
        windows = xp.lib.stride_tricks.as_strided(
            x,
            (C, *window.size, OH, OW, N),
            (
                c,
                h * window.dilation[0],
                w * window.dilation[1],
                h * window.stride[0],
                w * window.stride[1],
                n,
            ),
        )
        for first, rows in self._row_blocks(C * window.taps, y):
            block = columns[: C * window.taps * rows * OW * N].reshape(C, *window.size, rows, OW, N)
            block[...] = windows[:, :, :, first : first + rows]
            yield slice(first * OW * N, (first + rows) * OW * N), block.reshape(C * window.taps, -1)


def border_shape(x: Array, window: Window) -> Shape:
    """The shape of ``x`` with its padding around it; nothing where there is no padding."""
    C, H, W, N = x.shape
    return (C, *window.padded(H, W), N) if window.has_padding else (0,)


def with_border(x: Array, window: Window, value: float, border: Array) -> Array:
    """``x`` with its padding around it, in ``border``; ``x`` itself where there is no padding."""
    if not window.has_padding:
        return x
    top, left = window.padding
    bottom, right = top + x.shape[1], left + x.shape[2]
    border[:, :top] = value
    border[:, bottom:] = value
    border[:, top:bottom, :left] = value
    border[:, top:bottom, right:] = value
    border[:, top:bottom, left:right] = x
    return border


def without_border(padded: Array, window: Window, shape: Shape) -> Array:
    """What lies inside the padding, an array of ``shape``."""
    top, left = window.padding
    return padded[:, top : top + shape[1], left : left + shape[2]]


def split(groups: int, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The arrays' first axes cut into ``groups``, one group at a time."""
    sizes = [len(array) // groups for array in arrays]
    for group in range(groups):
        yield tuple(
            array[group * size : (group + 1) * size] for array, size in zip(arrays, sizes, strict=True)
        )


def _along_rows(weight: Array, x: Array) -> Array:
    """``weight``, whose shape is (1,) or that of ``x``'s first axes, with as many axes as ``x``."""
    return weight.reshape(*weight.shape, *[1] * (x.ndim - weight.ndim))


def as_matrix(array: Array) -> Array:
    """(A, B, C, ...) -> (A, B*C*...), a view."""
    return array.reshape(len(array), -1)


def as_columns(array: Array) -> Array:
    """(A, B, ..., N) -> (A*B*..., N), a view."""
    return array.reshape(-1, array.shape[-1])


def _labels_of(xp: Any, targets: Array) -> Array:
    """Labels (N,), or where the numbers of each sample are largest."""
    return targets if targets.ndim == 1 else xp.argmax(targets, axis=0)
