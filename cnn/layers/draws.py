"""Random numbers that layers draw in training, on the device."""

from backends import Backend
from backends.memory import Array
from cnn.support import random


class Draws:
    """Gives each layer that draws random numbers a stream of its own, and counts the updates.

    ``counters`` has the number of updates and the position of the batch's first sample in the whole batch.
    """

    def __init__(self, backend: Backend, seed: int) -> None:
        self._backend = backend
        self._seed = seed
        self._streams = 0
        self.counters: Array = None  # until a layer draws

    @property
    def state(self) -> dict[str, Array]:
        """The counters by name; nothing if no layer draws."""
        return {} if self.counters is None else {"draws": self.counters}

    def stream(self) -> int:
        """A number that is a layer's own; it follows from the seed and the layer's place in the network."""
        if self.counters is None:
            self.counters = self._backend.zeros(2, "int64")
        self._streams += 1
        return random.stream(self._seed, random.DRAWS, self._streams)
