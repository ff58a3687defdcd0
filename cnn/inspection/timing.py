"""Times the layers of a network inside whole training steps on its device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from backends import Timer
from backends.memory import Array
from cnn.inspection.restoring import restored
from cnn.layers.layer import Layer
from cnn.network import Network
from cnn.training.losses import Loss
from cnn.training.step import compute_gradients


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of several measurements, in seconds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """The spread of one or more measurements."""
        if len(seconds) == 1:
            return cls(seconds[0], seconds[0], seconds[0])
        low, _, high = quantiles(seconds, n=4, method="inclusive")
        return cls(median(seconds), low, high)


@dataclass(frozen=True)
class LayerTime:
    """The time of a layer in a training step; None if the step does not need that direction."""

    layer: str  # its label: "3 Conv2D"
    forward: Spread | None
    backward: Spread | None


def time_layers(network: Network, loss: Loss, x: Array, labels: Array, rounds: int = 11) -> list[LayerTime]:
    """Time every layer of ``network`` in ``rounds`` training steps on one batch, after a warm-up step.

    Each layer runs separately, even if training would fuse it with others.

    ``x`` (C, H, W, N) and ``labels`` (N,) are device arrays, ``loss`` is built for the network. The gradients
    are overwritten, the weights and statistics are unchanged. On CUDA, times are measured between events on
    the stream, so they include the gaps in which a layer waits to be launched.
    """
    watch = LayerWatch(network)
    with restored(network):
        with network.unfused():
            compute_gradients(network, loss, x, labels)
        for _ in range(rounds):
            with watch.step():
                compute_gradients(network, loss, x, labels)
    return watch.read()


class LayerWatch:
    """Times every layer of a network in the steps that run inside ``with watch.step():``."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._steps: list[dict[tuple[str, str], Timer]] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time the step inside the block."""
        timers: dict[tuple[str, str], Timer] = {}

        def timed(layer: Layer, direction: str, method: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                with self.network.backend.timer() as timer:
                    result = method(*arguments, **options)
                timers[layer.label, direction] = timer
                return result

            return call

        with wrapped(self.network, timed):
            yield
        self._steps.append(timers)

    def read(self) -> list[LayerTime]:
        """The times of the layers in all steps; waits for the device."""
        times = [{key: timer.seconds for key, timer in step.items()} for step in self._steps]

        def spread(key: tuple[str, str]) -> Spread | None:
            return Spread.of([step[key] for step in times]) if times and key in times[0] else None

        return [
            LayerTime(layer.label, spread((layer.label, "forward")), spread((layer.label, "backward")))
            for layer in self.network.walk()
        ]


@contextmanager
def wrapped(
    network: Network, wrap: Callable[[Layer, str, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Inside the block every layer runs ``wrap(layer, "forward", layer.forward)``, likewise for backward."""
    layers = list(network.walk())
    for layer in layers:
        for direction in ("forward", "backward"):
            setattr(layer, direction, wrap(layer, direction, getattr(layer, direction)))
    try:
        with network.unfused():
            yield
    finally:
        for layer in layers:
            del layer.forward, layer.backward
