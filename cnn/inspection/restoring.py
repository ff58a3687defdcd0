"""A network stays as it is while it is inspected."""

from collections.abc import Iterator
from contextlib import contextmanager

from cnn.network import Network


@contextmanager
def restored(network: Network) -> Iterator[None]:
    """Restore the weights, and everything else that a training forward pass changes, after the block."""
    before = [(array, array.copy()) for array in network.state.values()]
    try:
        yield
    finally:
        for array, copy in before:
            array[...] = copy
