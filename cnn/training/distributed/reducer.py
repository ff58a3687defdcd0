"""Reduces the shards of a batch to the batch's gradient, and to what else a shard leaves behind."""

from math import prod
from typing import NamedTuple

from backends.graph import launch
from backends.memory import Array
from cnn.data.feed import Feed
from cnn.data.sharding import Shard, Sharding
from cnn.network import Network
from cnn.training.distributed import tree
from cnn.training.distributed.communicator import Communicator
from cnn.training.losses import Loss


class Subtree(NamedTuple):
    """Shards that have been added."""

    vector: int  # the number of the vector that has their sum
    shards: int


class Reducer:
    """What a step does with the shards of a batch: nothing, because this batch is not cut into shards.

    After the backward pass, its gradient is complete.
    """

    size = 0
    """The length of the vector that the processes add up."""
    is_recordable = True
    """Whether the device can record a step that reduces its shards."""

    def begin(self, samples: int) -> None:
        """Begin a batch of so many samples."""

    def begin_shard(self, shard: Shard) -> None:
        """Begin one of this process's shards."""

    def add(self, shard: Shard) -> None:
        """Add the shard that has just been computed; one without samples is all zeros."""

    def finish(self, feed: Feed) -> None:
        """Let the network and the loss have the sum over the shards of all processes."""


class ShardReducer(Reducer):
    """Adds up the shards of a batch, in an order that does not depend on the number of processes.

    Each shard has one vector: [gradient | change of the running statistics | sum of the weights of a weighted
    loss]. The sum of these vectors is the batch's, except that the statistics change by the mean over the
    shards. Every shard starts with the statistics from before the batch.

    The shards are added in the order of :mod:`cnn.training.distributed.tree` as soon as they are computed, so
    there are never more vectors than the tree is deep.
    """

    def __init__(
        self, network: Network, loss: Loss, sharding: Sharding, group: Communicator, accumulates: bool
    ) -> None:
        self._network, self._loss, self._sharding = network, loss, sharding
        self._accumulates = accumulates  # the accumulation then counts the samples of a shard
        self._statistics = [array.reshape(-1) for array in network.statistics.values()]
        self._before = [array.copy() for array in self._statistics]
        zeros, dtype = network.backend.zeros, network.master_dtype
        self._changes = [zeros(array.size, dtype) for array in self._statistics]
        sizes = [prod(part.shape) for part in self._parts]
        stops = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        self._places = [slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]
        self.size = stops[-1]
        self._nodes = tree.nodes(sharding.own, sharding.count)
        self._vectors: list[Array] = []
        self._exchange = group.exchange(network.backend, sharding.count, self.size, dtype)

    @property
    def is_recordable(self) -> bool:  # type: ignore[override]
        network = self._network
        if network.context.link.peers is not None and network.backend.name != "cpu":
            return False  # layers ask the host for the moments of other processes
        return self._exchange is None or self._exchange.is_recordable

    def begin(self, samples: int) -> None:
        launch(setattr, self._network.context.link, "samples", samples)
        self._done: list[int] = []  # the vectors of the nodes that are complete
        self._open: list[Subtree] = []  # of the current node, from the left
        self._position = 0  # in the batch, up to which samples have been counted
        for array, before in zip(self._statistics, self._before, strict=True):
            launch(self._network.backend.xp.copyto, before, array)

    def begin_shard(self, shard: Shard) -> None:
        for array, before in zip(self._statistics, self._before, strict=True):
            launch(self._network.backend.xp.copyto, array, before)
        if shard.first > self._position:  # the shards before it are on other processes
            self._network.count_samples(shard.first - self._position)
        self._position = shard.first + self._accumulates * sum(shard.sizes)

    def add(self, shard: Shard) -> None:
        kernels, xp = self._network.backend.kernels, self._network.backend.xp
        for array, before, change in zip(self._statistics, self._before, self._changes, strict=True):
            launch(xp.subtract, array, before, out=change, casting="unsafe")  # a count of batches is whole
        if not shard.sizes:
            kernels.clear(self._vector(self._open_another()))
        elif self._open and self._open[-1].shards == 1:  # no vector is needed for the second of a pair
            self._open[-1] = last = self._open[-1]._replace(shards=2)
            for part, place in self._pieces(last.vector):
                kernels.add(place, part, place)
        else:
            for part, place in self._pieces(self._open_another()):
                kernels.copy(part, place)
        self._join_subtrees(is_last=shard.number + 1 == self._nodes[len(self._done)][1])

    def finish(self, feed: Feed) -> None:
        kernels, xp = self._network.backend.kernels, self._network.backend.xp
        if self._exchange is not None:
            self._exchange([self._vector(number) for number in self._done])
        for part, place in self._pieces(0):
            kernels.copy(place, part)
        filled = self._sharding.filled(feed.size)
        for array, before, change in zip(self._statistics, self._before, self._changes, strict=True):
            launch(xp.divide, change, filled, out=change)
            launch(xp.add, before, change, out=array, casting="unsafe")
        if not any(shard.sizes for shard in feed.shards):
            feed.skip()

    def _open_another(self) -> int:
        """Begin a vector with one shard; -> its number."""
        number = len(self._done) + len(self._open)
        self._open.append(Subtree(number, 1))
        return number

    def _join_subtrees(self, is_last: bool) -> None:
        """Join subtrees of the same size; after the last shard of a node, all of them, from the right."""
        while len(self._open) > 1 and (is_last or self._open[-2].shards == self._open[-1].shards):
            left, right = self._open[-2:]
            vector = self._vector(left.vector)
            self._network.backend.kernels.add(vector, self._vector(right.vector), vector)
            self._open[-2:] = [Subtree(left.vector, left.shards + right.shards)]
        if is_last:
            self._done.append(self._open.pop().vector)

    def _vector(self, number: int) -> Array:
        """One of the vectors; it is allocated when it is first needed."""
        while number >= len(self._vectors):
            self._vectors.append(self._network.backend.zeros(self.size, self._network.master_dtype))
        return self._vectors[number]

    def _pieces(self, number: int) -> list[tuple[Array, Array]]:
        """The parts of a shard, each with its place in the vector."""
        vector = self._vector(number)
        return [(part, vector[place]) for part, place in zip(self._parts, self._places, strict=True)]

    @property
    def _parts(self) -> list[Array]:
        """What a shard leaves behind, in the order of its vector."""
        total = self._loss.total  # another array if a callback has evaluated the network with the same loss
        return [self._network.flat.grad, *self._changes, *([] if total is None else [total])]
