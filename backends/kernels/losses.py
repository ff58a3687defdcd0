"""Losses, and the sums of metrics. Declared first, then in plain ``xp``."""

from typing import Any

from backends.kernels.arithmetic import ArithmeticKernels, PortableArithmeticKernels, as_columns
from backends.memory import Array, temporaries


class LossKernels(ArithmeticKernels):
    """The declarations; a kernel set overrides what it computes faster.

    ``targets`` are labels (N,), which stand for one-hot columns, or numbers in the shape of ``y`` (..., N).
    ``losses`` (N,) has a number for each sample, ``dy`` is the gradient of their sum / ``divisor``, and
    ``sums`` is as in :meth:`tally` (None: not wanted).
    """

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


class PortableLossKernels(PortableArithmeticKernels, LossKernels):
    """The same in plain ``xp``, for every device."""

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


def _labels_of(xp: Any, targets: Array) -> Array:
    """Labels (N,), or where the numbers of each sample are largest."""
    return targets if targets.ndim == 1 else xp.argmax(targets, axis=0)
