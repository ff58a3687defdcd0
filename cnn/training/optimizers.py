"""Optimizers, in order of complexity; each is a few kernels over flat vectors.

``step(rate)`` updates all parameters from all gradients. ``rate`` is an array on the device, so that a
step changes nothing but arrays. Arguments have the same meaning as in PyTorch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from backends.memory import Array
from cnn.network import Network
from cnn.support.arguments import flag, instance, number, shown
from cnn.support.errors import ArgumentError
from cnn.support.tensors import require_shapes
from cnn.training.groups import Group, Part, cut, two_betas, warn_of_unused


class Optimizer:
    """Base class of optimizers; a derived class overrides :meth:`update`, and :meth:`begin` if needed.

    ``state`` contains arrays by name; those in ``state_names`` are vectors as long as the parameter vector.
    """

    state_names: tuple[str, ...] = ()
    setting_names: tuple[str, ...] = ("weight_decay",)
    by_parameter = False  # whether each parameter needs an update of its own

    def __init__(self, learning_rate: float, weight_decay: float = 0.0, groups: Sequence[Group] = ()) -> None:
        self.learning_rate = number("learning_rate", learning_rate)
        self.weight_decay = number("weight_decay", weight_decay)
        if not isinstance(groups, Sequence):
            raise ArgumentError(f'groups is {shown(groups)}, expected a list such as [cnn.Group("*.bias")]')
        for group in groups:
            instance("groups", group, Group, 'cnn.Group("*.bias", weight_decay=0)')
        self.groups = tuple(groups)
        self._network: Any = None

    def build(self, network: Network) -> None:
        """Prepare for ``network``. The state is kept if it is the same network as before."""
        network.require_built()
        if not self._is_built_for(network):
            self.backend, self.flat = network.backend, network.flat
            self.state = self.initial_state(network)
            self._network = network  # last, because there may be no memory for the state
            warn_of_unused(self.groups, network)
        self._cut()

    def _is_built_for(self, network: Network) -> bool:
        """Whether it is built for ``network``, which has not been built again since."""
        return network is self._network and network.flat is self.flat

    def _require_built(self) -> None:
        """Raise ArgumentError if the optimizer has no network yet."""
        if self._network is None:
            raise ArgumentError(
                f"{type(self).__name__} is not built yet: call optimizer.build(net), or cnn.fit"
            )

    def initial_state(self, network: Network) -> dict[str, Array]:
        """The arrays that steps change besides the parameters, as they are before the first step."""
        return {name: network.backend.xp.zeros_like(network.flat.value) for name in self.state_names}

    @property
    def settings(self) -> tuple[Any, ...]:
        """The Python values that :meth:`step` uses; changes take effect in the next step."""
        return (
            *(getattr(self, name) for name in self.setting_names),
            self.groups,
            self._network.frozen_names,
        )

    @property
    def present_settings(self) -> dict[str, Any]:
        """The learning rate and the settings by name, as plain data."""
        found = {name: getattr(self, name) for name in ("learning_rate", *self.setting_names)}
        return found | {"groups": [group.description for group in self.groups] or None}

    @property
    def scheduled_momentum(self) -> float | None:
        """The momentum, if it can change from step to step."""
        return None

    def load_settings(self, settings: Mapping[str, Any]) -> None:
        """Take over the settings that a checkpoint has, if they are of this kind of optimizer."""
        for name in ("learning_rate", *self.setting_names):
            if name in settings and name in vars(self):
                value = settings[name]
                setattr(self, name, tuple(value) if isinstance(value, list) else value)

    def step(self, rate: Array) -> None:
        """Update all parameters from all gradients; layers that draw random numbers then draw others.

        ``rate`` is an array (1,) on the device, or (2,) if it contains the momentum too, or a number.
        """
        if not getattr(rate, "shape", ()):
            rate = self.backend.asarray([float(rate)], self._network.master_dtype)
        self._require_built()
        if self._cut_for != (self.groups, self._network.frozen_names):
            self._cut()
        self.begin(rate)
        for part in self._parts:
            part_rate = rate[:1]
            if part.group.rate != 1:
                self.backend.kernels.scale(part_rate, part.group.rate, part.rate)
                part_rate = part.rate
            decay = self.weight_decay if part.group.weight_decay is None else part.group.weight_decay
            self.update(part, part_rate, decay)
        self._network.count_update()

    def begin(self, rate: Array) -> None:
        """What a step does once, before the parts are updated."""

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        """``part.value`` from ``part.grad``, with the learning rate ``rate`` (1,) on the device."""
        raise NotImplementedError

    def _cut(self) -> None:
        vectors = {name: array for name, array in self.state.items() if name in self.state_names}
        self._parts = cut(self._network, self.groups, vectors, self.by_parameter)
        self._cut_for = self.groups, self._network.frozen_names

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Inside the block, the network has the weights that evaluation uses; the same by default."""
        yield

    def finish(self) -> None:
        """Leave the network with the weights that evaluation uses, at the end of training."""

    @property
    def arrays(self) -> dict[str, Array]:
        """The state under the names that files have for it: vectors by parameter, as "velocity/0.weight"."""
        self._require_built()
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

    def fresh(self) -> "Optimizer":
        """The same optimizer, not yet built."""
        twin = type(self).__new__(type(self))
        vars(twin).update(self._host_values() | {"_network": None})
        return twin

    def _host_values(self) -> dict[str, Any]:
        """The attributes that are not on the device."""
        of_sgd = "_momentum", "_present_momentum", "_last_matrix"
        on_device = ("state", "backend", "flat", "_parts", "_cut_for", *of_sgd)
        return {name: value for name, value in vars(self).items() if name not in on_device}

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or pickle: the settings and, if built, the network and the state."""
        kept = self._host_values()
        return kept if self._network is None else kept | {"state": self.state_dict()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept | {"_network": None})
        if kept["_network"] is not None:
            self.build(kept["_network"])
            self.load_state_dict(kept["state"])


def require_velocity(momentum: float, state_names: Sequence[str]) -> None:
    """Raise ArgumentError if there is a momentum, but no array for the velocity."""
    if momentum and "velocity" not in state_names:
        raise ArgumentError(
            f"momentum was set to {momentum:g} after the optimizer was made without one: "
            f"make it with momentum={momentum:g}"
        )


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
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, weight_decay, groups)
        self.momentum = number("momentum", momentum, below=1)
        self.nesterov = flag("nesterov", nesterov)
        if self.nesterov and not momentum:
            raise ArgumentError("nesterov without momentum has no effect: set momentum, for example to 0.9")
        self.state_names = ("velocity",) if momentum else ()

    def build(self, network: Network) -> None:
        super().build(network)
        self._momentum = network.backend.asarray([self.momentum], network.master_dtype)
        self._filled = self.momentum

    @property
    def scheduled_momentum(self) -> float | None:
        return self.momentum if self.state_names else None

    def begin(self, rate: Array) -> None:
        if self.momentum != self._filled:
            require_velocity(self.momentum, self.state_names)
            self._momentum.fill(self.momentum)
            self._filled = self.momentum
        self._present_momentum = rate[1:] if len(rate) > 1 else self._momentum

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        self.backend.kernels.sgd(
            part.value,
            part.grad,
            part.state.get("velocity"),
            rate,
            momentum=self._present_momentum,
            nesterov=self.nesterov,
            weight_decay=weight_decay,
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
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, weight_decay, groups)
        self.betas = two_betas(betas)
        self.epsilon = number("epsilon", epsilon)

    def initial_state(self, network: Network) -> dict[str, Array]:
        # beta ** step, on the device: the remaining weight of the moments' initial zeros
        powers = network.backend.xp.ones(2, dtype=network.master_dtype)
        return super().initial_state(network) | {"powers": powers}

    def begin(self, rate: Array) -> None:
        self.backend.kernels.next_powers(self.state["powers"], self.betas)

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        self.backend.kernels.adam(
            part.value,
            part.grad,
            part.state["mean"],
            part.state["square"],
            self.state["powers"],
            rate,
            betas=self.betas,
            epsilon=self.epsilon,
            weight_decay=weight_decay,
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
        groups: Sequence[Group] = (),
    ) -> None:
        super().__init__(learning_rate, betas, epsilon, weight_decay, groups)
