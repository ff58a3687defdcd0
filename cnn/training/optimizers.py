"""Optimizers, in order of complexity; each is one kernel over two flat vectors.

``step(rate)`` updates all parameters from all gradients. ``rate`` is an array on the device, so that a
step changes nothing but arrays. Arguments have the same meaning as in PyTorch.
"""

from collections.abc import Mapping
from typing import Any

from backends.memory import Array
from cnn.network import Network
from cnn.support.arguments import flag, number, shown
from cnn.support.errors import ArgumentError
from cnn.support.tensors import require_shapes


class Optimizer:
    """Base class of optimizers.

    ``state`` contains arrays by name; those in ``state_names`` are vectors as long as the parameter vector.
    """

    state_names: tuple[str, ...] = ()
    setting_names: tuple[str, ...] = ("weight_decay",)

    def __init__(self, learning_rate: float, weight_decay: float = 0.0) -> None:
        self.learning_rate = number("learning_rate", learning_rate)
        self.weight_decay = number("weight_decay", weight_decay)
        self._network: Any = None

    def build(self, network: Network) -> None:
        """Prepare for ``network``. The state is kept if it is the same network as before."""
        network.require_built()
        if network is self._network:
            return
        self.state = {name: network.backend.xp.zeros_like(network.flat.value) for name in self.state_names}
        self.backend = network.backend
        self.flat = network.flat
        self._network = network  # last, because there may be no memory for the state

    @property
    def settings(self) -> tuple[Any, ...]:
        """The Python numbers that :meth:`step` uses; changes take effect in the next step."""
        return tuple(getattr(self, name) for name in self.setting_names)

    @property
    def present_settings(self) -> dict[str, Any]:
        """The learning rate and the settings by name."""
        return {name: getattr(self, name) for name in ("learning_rate", *self.setting_names)}

    def step(self, rate: Array) -> None:
        """Update all parameters from all gradients; layers that draw random numbers then draw others."""
        self.update(rate)
        self._network.count_update()

    def update(self, rate: Array) -> None:
        """``flat.value`` from ``flat.grad``, with the learning rate ``rate`` (1,) on the device."""
        raise NotImplementedError

    @property
    def arrays(self) -> dict[str, Array]:
        """The state under the names that files have for it: vectors by parameter, as "velocity/0.weight"."""
        arrays: dict[str, Array] = {}
        for name, array in self.state.items():
            if name in self.state_names:
                parts = self._network.cut(array)
                arrays |= {f"{name}/{parameter}": part for parameter, part in parts.items()}
            else:
                arrays[name] = array
        return arrays

    def state_dict(self) -> dict[str, Any]:
        """Host copies of :attr:`arrays`."""
        return {name: self.backend.to_host(array) for name, array in self.arrays.items()}

    def require_state(self, arrays: Mapping[str, Any]) -> None:
        """Raise CheckpointError unless :meth:`load_state_dict` can load these arrays."""
        require_shapes("the optimizer's state", arrays, self.arrays)

    def load_state_dict(self, arrays: Mapping[str, Any]) -> None:
        """Load the result of :meth:`state_dict`; CheckpointError if it is from a different optimizer."""
        self.require_state(arrays)
        for name, array in self.arrays.items():
            self.backend.asarray(arrays[name], out=array)

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or pickle: the settings and, if built, the network and the state."""
        kept = {name: value for name, value in vars(self).items() if name not in ("state", "backend", "flat")}
        return kept if self._network is None else kept | {"state": self.state_dict()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept | {"_network": None})
        if kept["_network"] is not None:
            self.build(kept["_network"])
            self.load_state_dict(kept["state"])


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013), like PyTorch's SGD.

    ``v = momentum * v + g``, ``value -= rate * v``; with ``nesterov`` the step is ``g + momentum * v``;
    ``weight_decay`` is added to the gradient.
    """

    setting_names = (*Optimizer.setting_names, "momentum", "nesterov")

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = number("momentum", momentum, below=1)
        self.nesterov = flag("nesterov", nesterov)
        if self.nesterov and not momentum:
            raise ArgumentError("nesterov without momentum has no effect: set momentum, for example to 0.9")
        self.state_names = ("velocity",) if momentum else ()

    def update(self, rate: Array) -> None:
        self.backend.kernels.sgd(
            self.flat.value,
            self.flat.grad,
            self.state.get("velocity"),
            rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), like PyTorch's: ``weight_decay`` is added to the gradient."""

    state_names = ("mean", "square")
    setting_names = (*Optimizer.setting_names, "betas", "epsilon")
    decoupled = False  # whether the decay acts on the weights directly instead of through the gradient

    def __init__(
        self,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise ArgumentError(f"betas is {shown(betas)}, expected two numbers such as (0.9, 0.999)")
        self.betas = number("betas[0]", betas[0], below=1), number("betas[1]", betas[1], below=1)
        self.epsilon = number("epsilon", epsilon)

    def build(self, network: Network) -> None:
        is_new = network is not self._network
        super().build(network)
        if is_new:
            # beta ** step, on the device: the remaining weight of the moments' initial zeros
            self.state["powers"] = network.backend.xp.ones(2, dtype=network.dtype)

    def update(self, rate: Array) -> None:
        self.backend.kernels.adam(
            self.flat.value,
            self.flat.grad,
            self.state["mean"],
            self.state["square"],
            self.state["powers"],
            rate,
            betas=self.betas,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
            decoupled=self.decoupled,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): ``value *= 1 - rate * weight_decay``."""

    decoupled = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(learning_rate, betas, epsilon, weight_decay)


OPTIMIZERS: Mapping[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
