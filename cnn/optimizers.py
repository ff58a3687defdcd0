"""Optimizers, in the order of their complexity: a few lines over two flat vectors each.

``step(rate)`` updates all parameters from all gradients; ``rate`` is a number on the device, so
that nothing in a step changes but arrays. Arguments mean what they mean in PyTorch.
"""

from collections.abc import Mapping

from cnn.arguments import number
from cnn.errors import ArgumentError
from cnn.layers.buffers import Array
from cnn.network import Sequential

TINY = 1e-30
"""Optimizer state below this becomes zero: subnormal numbers would slow every later step down."""


class Optimizer:
    """What the optimizers share: their place on a network and their state, vectors like the parameters."""

    state_names: tuple[str, ...] = ()

    def __init__(self, learning_rate: float, weight_decay: float = 0.0) -> None:
        self.learning_rate = number("learning_rate", learning_rate)
        self.weight_decay = number("weight_decay", weight_decay)
        self._network: Sequential | None = None

    def build(self, network: Sequential) -> None:
        """Take up work on ``network``; on the same network as before, go on with the state."""
        network.require_built()
        if network is self._network:
            return
        self._network = network
        self.backend = network.backend
        self.flat = network.flat
        xp = self.backend.xp
        self.state = {name: xp.zeros_like(self.flat.value) for name in self.state_names}
        self._scratch = xp.empty_like(self.flat.value)
        self._change = xp.empty_like(self.flat.value)
        self._mask = xp.empty(self.flat.shape, dtype=xp.bool_)

    def step(self, rate: Array) -> None:
        """Update the parameters; ``rate`` is the learning rate, one number on the device."""
        raise NotImplementedError

    def _decayed_gradient(self) -> Array:
        """The gradient, with the decay of the weights added to it."""
        if not self.weight_decay:
            return self.flat.grad
        xp = self.backend.xp
        xp.multiply(self.flat.value, self.weight_decay, out=self._change)
        return xp.add(self._change, self.flat.grad, out=self._change)

    def _flush(self, state: Array) -> None:
        """Set what is too small to matter to zero, before it becomes subnormal."""
        xp = self.backend.xp
        xp.absolute(state, out=self._scratch)
        xp.greater_equal(self._scratch, TINY, out=self._mask)
        xp.multiply(state, self._mask, out=state)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013), as PyTorch's SGD.

    ``v = momentum * v + g``, ``value -= rate * v``; with ``nesterov`` the step is ``g + momentum * v``;
    ``weight_decay`` is added to the gradient.
    """

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = number("momentum", momentum, below=1)
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise ArgumentError("nesterov without momentum does nothing: give a momentum, 0.9 for example")
        self.state_names = ("velocity",) if momentum else ()

    def step(self, rate: Array) -> None:
        xp = self.backend.xp
        change = gradient = self._decayed_gradient()
        if self.momentum:
            change = velocity = self.state["velocity"]
            xp.multiply(velocity, self.momentum, out=velocity)
            xp.add(velocity, gradient, out=velocity)
            self._flush(velocity)
            if self.nesterov:
                xp.multiply(velocity, self.momentum, out=self._scratch)
                change = xp.add(self._scratch, gradient, out=self._scratch)
        xp.multiply(change, rate, out=self._change)
        xp.subtract(self.flat.value, self._change, out=self.flat.value)


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), as PyTorch's: ``weight_decay`` is added to the gradient."""

    state_names = ("mean", "square")

    def __init__(
        self,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ArgumentError(f"betas is {betas!r}, expected two numbers such as (0.9, 0.999)")
        self.betas = number("betas[0]", betas[0], below=1), number("betas[1]", betas[1], below=1)
        self.epsilon = number("epsilon", epsilon)

    def build(self, network: Sequential) -> None:
        if network is not self._network:
            # beta ** step, on the device: what the moments' zero start still weighs
            self._powers = [network.backend.xp.ones((), dtype=network.dtype) for _ in self.betas]
        super().build(network)

    def step(self, rate: Array) -> None:
        self._step(self._decayed_gradient(), rate)

    def _step(self, gradient: Array, rate: Array) -> None:
        xp = self.backend.xp
        mean, square = self.state["mean"], self.state["square"]
        for moment, beta, power in zip((mean, square), self.betas, self._powers, strict=True):
            xp.multiply(gradient, 1 - beta, out=self._scratch)
            if moment is square:
                xp.multiply(self._scratch, gradient, out=self._scratch)
            xp.multiply(moment, beta, out=moment)
            xp.add(moment, self._scratch, out=moment)
            self._flush(moment)
            xp.multiply(power, beta, out=power)
        # rate * mean / (1 - b1^t) / (sqrt(square / (1 - b2^t)) + epsilon)
        xp.divide(square, 1 - self._powers[1], out=self._scratch)
        xp.sqrt(self._scratch, out=self._scratch)
        xp.add(self._scratch, self.epsilon, out=self._scratch)
        xp.divide(mean, self._scratch, out=self._scratch)
        xp.multiply(self._scratch, rate / (1 - self._powers[0]), out=self._scratch)
        xp.subtract(self.flat.value, self._scratch, out=self.flat.value)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): ``value *= 1 - rate * weight_decay``."""

    def __init__(
        self,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, betas, epsilon, weight_decay)

    def step(self, rate: Array) -> None:
        xp = self.backend.xp
        xp.multiply(self.flat.value, 1 - rate * self.weight_decay, out=self.flat.value)
        self._step(self.flat.grad, rate)


OPTIMIZERS: Mapping[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
