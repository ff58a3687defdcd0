"""Optimizers around an optimizer, which average the weights over the steps."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from backends.memory import Array
from cnn.network import Network
from cnn.support.arguments import instance, number, whole
from cnn.support.errors import ArgumentError
from cnn.training.optimizers import Optimizer


class _Around(Optimizer):
    """An optimizer that adds something to each step of another one."""

    own_settings: tuple[str, ...] = ()
    own_vector: str

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = instance("optimizer", optimizer, Optimizer, "cnn.SGD(0.05, momentum=0.9)")
        if isinstance(optimizer, _Around):
            raise ArgumentError(
                f"optimizer is {type(optimizer).__name__}, which averages already: expected one like cnn.SGD"
            )
        self._network: Any = None

    @property
    def learning_rate(self) -> float:
        """That of the optimizer inside."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

    @property
    def scheduled_momentum(self) -> float | None:
        return self.optimizer.scheduled_momentum

    @property
    def setting_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.own_settings

    @property
    def state_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.optimizer.state_names, self.own_vector)

    def build(self, network: Network) -> None:
        self.optimizer.build(network)
        if not self._is_built_for(network):
            self.backend, self.flat = network.backend, network.flat
            self.state = self.initial_state(network)
            self._network = network
        self.state |= self.optimizer.state  # new if it has trained another network in between

    def initial_state(self, network: Network) -> dict[str, Array]:
        statistics = self._statistics(network)
        copies = {f"{self.own_vector}/{name}": array.copy() for name, array in statistics.items()}
        return {
            self.own_vector: network.flat.value.copy(),
            "updates": network.backend.zeros(1, "int64"),
            **copies,
        }

    def _statistics(self, network: Network) -> dict[str, Array]:
        """The network's statistics that can be averaged; counts cannot."""
        return {name: array for name, array in network.statistics.items() if array.dtype.kind == "f"}

    def _pairs(self) -> list[tuple[Array, Array]]:
        """Each array of the network with its average."""
        statistics = self._statistics(self._network).items()
        pairs = [(array, self.state[f"{self.own_vector}/{name}"]) for name, array in statistics]
        return [(self.flat.value, self.state[self.own_vector]), *pairs]

    @property
    def settings(self) -> tuple[Any, ...]:
        return (*self.optimizer.settings, *(getattr(self, name) for name in self.own_settings))

    @property
    def present_settings(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.own_settings}
        return self.optimizer.present_settings | {"around": type(self.optimizer).__name__} | own

    def load_settings(self, settings: Mapping[str, Any]) -> None:
        super().load_settings(settings)
        self.optimizer.load_settings(settings)

    def fresh(self) -> Optimizer:
        twin = super().fresh()
        vars(twin)["optimizer"] = self.optimizer.fresh()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"optimizer": copy.copy(self.optimizer)}  # which is this one's alone

    def step(self, rate: Array) -> None:
        self.optimizer.step(rate)
        self.average()
        self.backend.kernels.count_average(self.state["updates"])

    def average(self) -> None:
        """What follows the step of the optimizer inside."""
        raise NotImplementedError


class Lookahead(_Around):
    """Slow weights that follow an optimizer's (Zhang et al. 2019).

    After each ``every`` steps the slow weights move the share ``alpha`` of the way to the weights, which
    continue from there. The running statistics of normalizations are averaged in the same way.
    """

    own_settings, own_vector = ("every", "alpha"), "slow"

    def __init__(self, optimizer: Optimizer, every: int = 5, alpha: float = 0.5) -> None:
        super().__init__(optimizer)
        self.every = whole("every", every)
        self.alpha = number("alpha", alpha)

    def average(self) -> None:
        for value, slow in self._pairs():
            self.backend.kernels.lookahead(value, slow, self.state["updates"], self.every, self.alpha)


class EMA(_Around):
    """An exponential moving average of the weights and statistics, for evaluation (Polyak & Juditsky 1992).

    ``average = decay * average + (1 - decay) * weights`` after each step; the first step sets it to the
    weights, as in PyTorch's AveragedModel with ``get_ema_multi_avg_fn``. ``fit`` evaluates and saves the
    averages, and the network has them at the end. Checkpoints contain both.
    """

    own_settings, own_vector = ("decay",), "average"

    def __init__(self, optimizer: Optimizer, decay: float = 0.999) -> None:
        super().__init__(optimizer)
        self.decay = number("decay", decay, below=1)

    def average(self) -> None:
        for value, mean in self._pairs():
            self.backend.kernels.average(value, mean, self.state["updates"], self.decay)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        pairs = self._pairs()
        kept = [value.copy() for value, _ in pairs]
        self.finish()
        try:
            yield
        finally:
            for (value, _), before in zip(pairs, kept, strict=True):
                value[...] = before

    def finish(self) -> None:
        for value, mean in self._pairs():
            value[...] = mean
