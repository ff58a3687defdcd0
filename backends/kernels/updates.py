"""Updates of flat vectors: clipping, optimizers and averages. Declared first, then in plain ``xp``."""

from backends.kernels.arithmetic import ArithmeticKernels, PortableArithmeticKernels
from backends.memory import Array, temporaries

TINY = 1e-30
"""Optimizer state below this becomes zero: subnormal numbers would slow down every later step."""

NORM_ROUNDING = 1e-6
"""Added to a norm that is divided by, as in PyTorch."""

MUON_COEFFICIENTS, MUON_EPSILON = (3.4445, -4.775, 2.0315), 1e-7
"""Of the Newton-Schulz iteration a x + b (x x^T) x + c (x x^T)^2 x, and the smallest norm."""


LOSS_SCALES = 2.0**-24, 2.0**24
"""The smallest and the largest scale of a loss, between which all its multiples by 2 are exact."""


class UpdateKernels(ArithmeticKernels):
    """The declarations; a kernel set overrides what it computes faster."""

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

    def clip_value(self, grad: Array, limit: float) -> None:
        """``grad`` = each number moved into the range from -``limit`` to ``limit``; NaN stays NaN."""
        raise NotImplementedError

    def multiply(self, x: Array, factor: Array) -> None:
        """``x *= factor`` (1,), in place; the factor is on the device and may change from step to step."""
        raise NotImplementedError

    def unscale(self, grad: Array, scale: Array, counts: Array, every: int) -> None:
        """``grad /= scale`` (1,), or 0 if a number in it is NaN or infinite; then the next step's ``scale``.

        That is half of it if a number was not finite, and twice of it after ``every`` finite gradients in a
        row. ``counts`` (2,) = the finite gradients since the scale last changed, and those that became 0.
        """
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

    def scale_to_norm(self, value: Array, norm: float) -> None:
        """``value *= norm / |value|``, the Euclidean norm; zeros stay zeros."""
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


class PortableUpdateKernels(PortableArithmeticKernels, UpdateKernels):
    """The same in plain ``xp``, for every device."""

    def count_update(self, counters: Array) -> None:
        counters[:1] += 1
        counters[1:] = 0

    def count_samples(self, counters: Array, samples: int) -> None:
        counters[1:] += samples

    def clip_norm(self, grad: Array, limit: float) -> None:
        xp = self.device.xp
        (square,) = temporaries(self.device, (grad.shape, grad.dtype))
        xp.multiply(grad, grad, out=square)
        norm = xp.sqrt(xp.sum(square, keepdims=True))
        xp.multiply(grad, xp.fmin(limit / (norm + NORM_ROUNDING), 1), out=grad)

    def clip_value(self, grad: Array, limit: float) -> None:
        self.device.xp.clip(grad, -limit, limit, out=grad)

    def multiply(self, x: Array, factor: Array) -> None:
        self.device.xp.multiply(x, factor, out=x)

    def unscale(self, grad: Array, scale: Array, counts: Array, every: int) -> None:
        xp = self.device.xp
        (mask,) = temporaries(self.device, (grad.shape, xp.bool_))
        xp.isfinite(grad, out=mask)
        is_finite = xp.all(mask, keepdims=True)
        xp.divide(grad, scale, out=grad)
        xp.copyto(grad, 0, where=xp.logical_not(is_finite))
        since = xp.where(is_finite, counts[:1] + 1, 0)
        is_due = since >= every
        factor = xp.where(is_finite, xp.where(is_due, 2.0, 1.0), 0.5).astype(scale.dtype)
        xp.clip(scale * factor, *LOSS_SCALES, out=scale)
        counts[:1] = xp.where(is_due, 0, since)
        counts[1:] += xp.logical_not(is_finite)

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
            self._flush(mean, work, mask)
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

    def scale_to_norm(self, value: Array, norm: float) -> None:
        xp = self.device.xp
        (work,) = temporaries(self.device, (value.shape, value.dtype))
        xp.multiply(value, value, out=work)
        xp.multiply(value, norm / xp.maximum(xp.sqrt(xp.sum(work)), TINY), out=value)

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

    def _flush(self, state: Array, work: Array, mask: Array) -> None:
        """Set what is too small to matter to zero, before it becomes subnormal."""
        xp = self.device.xp
        xp.absolute(state, out=work)
        xp.greater_equal(work, TINY, out=mask)
        xp.multiply(state, mask, out=state)
