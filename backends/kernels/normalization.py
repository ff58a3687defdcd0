"""Normalization and dropout. Declared first, then in plain ``xp``."""

from math import prod

from backends.kernels.activations import ActivationKernels, PortableActivationKernels
from backends.kernels.arithmetic import along_rows, as_matrix
from backends.kernels.functions import Function
from backends.kernels.hashing import hash_limit, scrambled
from backends.memory import Array, temporaries


class NormalizationKernels(ActivationKernels):
    """The declarations; a kernel set overrides what it computes faster."""

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
        epsilon: float, out: Array, formula: Function | None = None, addend: Array | None = None,
    ) -> None:  # fmt: skip
        """``out = (x - mean) / sqrt(variance + epsilon) * weight + bias`` for each row of ``x`` (C, ...).

        Then ``addend`` is added, and ``out`` is the function ``formula`` of that, if they are given. ``out``
        may be ``x``.
        """
        raise NotImplementedError

    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
        formula: Function | None = None, addend: Array | None = None, addend_grad: Array | None = None,
    ) -> None:  # fmt: skip
        """The gradients of :meth:`normalize` with the moments of ``x``; None: not wanted."""
        raise NotImplementedError

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


class PortableNormalizationKernels(PortableActivationKernels, NormalizationKernels):
    """The same in plain ``xp``, for every device."""

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
        epsilon: float, out: Array, formula: Function | None = None, addend: Array | None = None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        rows = as_matrix(out)
        scale = 1 / xp.sqrt(variance + epsilon)
        if weight is not None:
            scale *= weight
        xp.subtract(as_matrix(x), mean[:, None], out=rows)
        xp.multiply(rows, scale[:, None], out=rows)
        if bias is not None:
            xp.add(rows, bias[:, None], out=rows)
        if addend is not None:
            xp.add(out, addend, out=out)
        self._apply(formula, out)

    def normalize_grad(
        self, dy: Array, x: Array, mean: Array, variance: Array, weight: Array | None, bias: Array | None,
        epsilon: float, weight_grad: Array | None, bias_grad: Array | None, dx: Array | None,
        formula: Function | None = None, addend: Array | None = None, addend_grad: Array | None = None,
    ) -> None:  # fmt: skip
        if formula is not None:
            value, grad = (self.scratch(name, dy.shape, dy.dtype) for name in ("normalized", "gradient"))
            self.normalize(x, mean, variance, weight, bias, epsilon, value, None, addend)
            self.activate_grad(dy, value, formula, grad)
            dy = grad
        if addend_grad is not None:
            addend_grad[...] = dy
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
            xp.multiply(out, along_rows(weight, out), out=out)
        if bias is not None:
            xp.add(out, along_rows(bias, out), out=out)

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
        xp.multiply(dy, 1 if weight is None else along_rows(weight, dy), out=dx)
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
