"""What a training step does besides its windows, in plain ``xp``: batches, activations, losses, updates.

Batch last: ``y`` is (features, N) or (channels, height, width, N), ``labels`` and ``losses`` are (N,).
"""

from typing import TYPE_CHECKING

from backends.memory import Array, carve

if TYPE_CHECKING:
    from backends.backend import Backend

NORM_ROUNDING = 1e-6
"""Added to a norm that is divided by, as in PyTorch."""

TINY = 1e-30
"""Optimizer state below this becomes zero: subnormal numbers would slow every later step down."""


class StepKernels:
    """The part of every kernel set that knows no windows."""

    def __init__(self, backend: "Backend") -> None:
        self.backend = backend

    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool) -> bool:
        """``out = a @ b`` or ``out += a @ b`` where this set has a kernel for it; -> whether it did."""
        return False

    def next_batch(
        self, cursor: Array, order: Array, labels: Array, rates: Array, chosen: Array, chosen_labels: Array,
        rate: Array,
    ) -> None:  # fmt: skip
        """``chosen`` (n,) = the next indices in ``order``, with their labels; ``rate`` = this step's.

        The ``cursor``, how many (samples, steps) are done, moves on; beyond the end it starts again.
        """
        xp = self.backend.xp
        (positions,) = carve(self.backend, (chosen.shape, cursor.dtype))
        xp.add(xp.arange(len(chosen)), cursor[:1], out=positions)
        xp.remainder(positions, len(order), out=positions)
        self.backend.take(order, positions, out=chosen)
        self.backend.take(labels, chosen, out=chosen_labels)
        self.backend.take(rates, xp.remainder(cursor[1:], len(rates)), out=rate)
        cursor[:1] += len(chosen)
        cursor[1:] += 1

    def gather_batch(self, images: Array, indices: Array, out: Array) -> None:
        """``out`` = ``images[indices]``, (N, C, H, W) -> (C, H, W, n); bytes are scaled to 0..1."""
        (chosen,) = carve(self.backend, ((len(indices), *images.shape[1:]), images.dtype))
        self.backend.take(images, indices, out=chosen)
        out[...] = chosen.transpose(1, 2, 3, 0)
        if images.dtype == self.backend.xp.uint8:
            self.backend.xp.multiply(out, 1 / 255, out=out)

    def add_bias(self, y: Array, bias: Array, rectify: bool = False) -> None:
        """``y += bias``, one number a row, in place; and with ``rectify`` ReLU of that."""
        y += bias.reshape(-1, *[1] * (y.ndim - 1))
        if rectify:
            self.relu(y, y)

    def sum_rows(self, x: Array, out: Array) -> None:
        """``out`` = the sum of each row of ``x``, all further axes taken together."""
        self.backend.xp.sum(x.reshape(len(x), -1), axis=1, out=out)

    def relu(self, x: Array, out: Array) -> None:
        """``out = max(x, 0)``."""
        # as maximum(x, 0), which NumPy computes three times slower for a number than for an array
        self.backend.xp.clip(x, 0, self.backend.xp.inf, out=out)

    def relu_grad(self, dy: Array, y: Array, out: Array, sums: Array | None = None) -> None:
        """``out`` = dy where ``y``, what ReLU gave out, is positive; ``sums`` gets the sum of each row."""
        xp = self.backend.xp
        (mask,) = carve(self.backend, (dy.shape, xp.bool_))
        xp.greater(y, 0, out=mask)
        xp.multiply(dy, mask, out=out)
        if sums is not None:
            self.sum_rows(out, sums)

    def tanh_grad(self, dy: Array, y: Array, out: Array) -> None:
        """``out = dy (1 - y^2)`` for ``y`` that tanh gave out."""
        xp = self.backend.xp
        xp.multiply(y, y, out=out)
        xp.subtract(1, out, out=out)
        xp.multiply(out, dy, out=out)

    def softmax(self, x: Array, out: Array) -> None:
        """``out`` = the softmax of ``x`` along the first axis, safe from overflow."""
        xp = self.backend.xp
        xp.subtract(x, xp.max(x, axis=0, keepdims=True), out=out)
        xp.exp(out, out=out)
        xp.divide(out, xp.sum(out, axis=0, keepdims=True), out=out)

    def softmax_grad(self, dy: Array, y: Array, out: Array) -> None:
        """``out = y (dy - sum(y dy))`` along the first axis: the product with the Jacobian."""
        xp = self.backend.xp
        xp.multiply(y, dy, out=out)
        total = xp.sum(out, axis=0, keepdims=True)
        xp.subtract(dy, total, out=out)
        xp.multiply(out, y, out=out)

    def cross_entropy(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        """``losses`` = -log softmax(y)[label] of logits (classes, N).

        ``dy`` = the gradient of their sum over ``divisor``; ``sums`` as :meth:`tally` (None: not wanted).
        """
        xp = self.backend.xp
        (shifted,) = carve(self.backend, (y.shape, y.dtype))
        xp.subtract(y, xp.max(y, axis=0, keepdims=True), out=shifted)
        xp.exp(shifted, out=dy)
        total = xp.sum(dy, axis=0)
        xp.divide(dy, total, out=dy)
        xp.subtract(xp.log(total), xp.take_along_axis(shifted, labels[None], axis=0)[0], out=losses)
        self._one_hot(labels, shifted)
        xp.subtract(dy, shifted, out=dy)
        xp.divide(dy, divisor, out=dy)
        if sums is not None:
            self.tally(losses, y, labels, sums)

    def binary_cross_entropy(
        self, y: Array, labels: Array, losses: Array, dy: Array, divisor: int, sums: Array | None = None
    ) -> None:
        """``losses`` = -mean(t log p + (1 - t) log(1 - p)) of probabilities (classes, N); more as above."""
        xp = self.backend.xp
        p, target, work = carve(self.backend, *[(y.shape, y.dtype)] * 3)
        margin = float(xp.finfo(y.dtype).eps)
        xp.clip(y, margin, 1 - margin, out=p)
        self._one_hot(labels, target)
        # of p where t = 1 and of 1 - p where t = 0
        xp.subtract(p, 1, out=work)
        xp.add(work, target, out=work)
        xp.absolute(work, out=work)
        xp.log(work, out=work)
        xp.mean(work, axis=0, out=losses)
        xp.negative(losses, out=losses)
        # (p - t) / (p (1 - p)) / classes
        xp.subtract(1, p, out=work)
        xp.multiply(work, p, out=work)
        xp.subtract(p, target, out=dy)
        xp.divide(dy, work, out=dy)
        xp.divide(dy, len(y) * divisor, out=dy)
        if sums is not None:
            self.tally(losses, y, labels, sums)

    def tally(self, losses: Array, y: Array, labels: Array, sums: Array) -> None:
        """``sums`` += (the losses' sum, how often ``y`` is largest at the label, how many), in float64."""
        xp = self.backend.xp
        sums[0] += xp.sum(losses, dtype=xp.float64)
        sums[1] += xp.sum(xp.equal(xp.argmax(y, axis=0), labels))
        sums[2] += len(labels)

    def clip_norm(self, grad: Array, limit: float) -> None:
        """``grad *= min(1, limit / (|grad| + 1e-6))``, over a flat vector, as PyTorch computes it.

        If the norm is NaN, the gradient stays as it is: its padding would become NaN for good.
        """
        xp = self.backend.xp
        (square,) = carve(self.backend, (grad.shape, grad.dtype))
        xp.multiply(grad, grad, out=square)
        norm = xp.sqrt(xp.sum(square, keepdims=True))
        xp.multiply(grad, xp.fmin(limit / (norm + NORM_ROUNDING), 1), out=grad)

    def sgd(
        self, value: Array, grad: Array, velocity: Array | None, rate: Array, momentum: float,
        nesterov: bool, weight_decay: float,
    ) -> None:  # fmt: skip
        """``v = momentum * v + g + weight_decay * value``, ``value -= rate * v``, over flat vectors.

        ``velocity=None``: without momentum. With ``nesterov`` the step is the gradient + momentum * v.
        """
        xp = self.backend.xp
        change, work, mask = carve(self.backend, *[(value.shape, value.dtype)] * 2, (value.shape, xp.bool_))
        if weight_decay:
            xp.multiply(value, weight_decay, out=change)
            grad = xp.add(change, grad, out=change)
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

    def adam(
        self, value: Array, grad: Array, mean: Array, square: Array, powers: Array, rate: Array,
        betas: tuple[float, float], epsilon: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        """``value -= rate * mean / (1 - b1^t) / (sqrt(square / (1 - b2^t)) + epsilon)``, over flat vectors.

        ``powers`` (2,) holds b1^(t - 1), b2^(t - 1) and moves on. The decay is added to the gradient, or
        where ``decoupled`` taken off the values.
        """
        xp = self.backend.xp
        change, work, mask = carve(self.backend, *[(value.shape, value.dtype)] * 2, (value.shape, xp.bool_))
        if decoupled:
            xp.multiply(value, 1 - rate * weight_decay, out=value)
        elif weight_decay:
            xp.multiply(value, weight_decay, out=change)
            grad = xp.add(change, grad, out=change)
        for index, (moment, beta) in enumerate(zip((mean, square), betas, strict=True)):
            xp.multiply(grad, 1 - beta, out=work)
            if moment is square:
                xp.multiply(work, grad, out=work)
            xp.multiply(moment, beta, out=moment)
            xp.add(moment, work, out=moment)
            self._flush(moment, work, mask)
            powers[index] *= beta
        xp.divide(square, 1 - powers[1], out=work)
        xp.sqrt(work, out=work)
        xp.add(work, epsilon, out=work)
        xp.divide(mean, work, out=work)
        xp.multiply(work, rate / (1 - powers[0]), out=work)
        xp.subtract(value, work, out=value)

    def _one_hot(self, labels: Array, out: Array) -> None:
        """1 where the label is, 0 elsewhere: (N,) -> (classes, N)."""
        xp = self.backend.xp
        xp.equal(xp.arange(len(out))[:, None], labels, out=out)

    def _flush(self, state: Array, work: Array, mask: Array) -> None:
        """Set what is too small to matter to zero, before it becomes subnormal."""
        xp = self.backend.xp
        xp.absolute(state, out=work)
        xp.greater_equal(work, TINY, out=mask)
        xp.multiply(state, mask, out=state)
