"""Adds the vectors of all processes."""

from collections.abc import Sequence
from typing import Any, Protocol

from backends import Backend
from backends.graph import launch
from backends.memory import Array
from cnn.data.sharding import Sharding
from cnn.layers.synchronized import Peers
from cnn.training.distributed import tree

Message = tuple[Array, int, int]
"""An array, the process that it goes to or comes from, and a number that both know it by."""


class Transport(Peers, Protocol):
    """Carries arrays of one device between processes."""

    is_recordable: bool
    """Whether the device can record what the methods do."""

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        """Send and receive these messages, and wait until all have arrived."""

    def share(self, vector: Array, edges: Sequence[int]) -> None:
        """Let all have the whole ``vector``, of which process r has ``edges[r]`` to ``edges[r + 1]``."""


class Exchange:
    """Adds the subtree sums of all processes, in the order of the tree.

    Each of R processes adds up one R-th of the vector: it receives this part of the sums of all others, and
    all share the results. If a process has one whole subtree, it sends ``2 (R - 1) / R`` times the vector, as
    in a ring (Rabenseifner 2004, section 4.2).
    """

    def __init__(
        self,
        transport: Transport,
        rank: int,
        processes: int,
        backend: Backend,
        shards: int,
        size: int,
        dtype: Any,
    ) -> None:
        self._transport, self._rank, self._shards = transport, rank, shards
        self._kernels = backend.kernels
        self._edges = [size * number // processes for number in range(processes + 1)]
        self._nodes = [
            tree.nodes(Sharding.of(shards, each, processes).own, shards) for each in range(processes)
        ]
        rows = sum(len(nodes) for each, nodes in enumerate(self._nodes) if each != rank)
        mine = self._edges[rank + 1] - self._edges[rank]
        self._received = backend.zeros(rows * mine, dtype).reshape(rows, mine)

    @property
    def is_recordable(self) -> bool:
        """Whether the device can record it."""
        return self._transport.is_recordable

    def __call__(self, vectors: Sequence[Array]) -> None:
        """``vectors[0]`` = the sum over all processes; ``vectors`` are those of this process's subtrees."""
        parts: dict[tree.Node, Array] = {}
        sends, receives = [], []
        rows = iter(self._received)
        for peer, nodes in enumerate(self._nodes):
            if peer == self._rank:
                parts |= {node: self._part(vector, peer) for node, vector in zip(nodes, vectors, strict=True)}
                continue
            for number, node in enumerate(nodes):
                parts[node] = next(rows)
                receives.append((parts[node], peer, number))
            sends += [(self._part(vector, peer), peer, number) for number, vector in enumerate(vectors)]
        launch(self._transport.exchange, sends, receives)
        total = tree.add_up(parts, self._shards, self._add)
        own = self._part(vectors[0], self._rank)
        if total is not parts[self._nodes[self._rank][0]]:
            self._kernels.copy(total, own)
        launch(self._transport.share, vectors[0], self._edges)

    def _part(self, vector: Array, process: int) -> Array:
        """The part of a vector that a process adds up."""
        return vector[self._edges[process] : self._edges[process + 1]]

    def _add(self, left: Array, right: Array) -> Array:
        self._kernels.add(left, right, left)
        return left
