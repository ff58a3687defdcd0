"""How batches are cut into shards, and which of these this process computes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnn.support.errors import ArgumentError


@dataclass(frozen=True)
class Shard:
    """A part of a batch that is never divided between processes."""

    number: int
    first: int  # the position of its first sample in the batch
    sizes: Sequence[int]  # of the pieces that it is computed in; none if it is empty


@dataclass(frozen=True)
class Sharding:
    """Cuts ``n`` samples by position: shard v of V has those from ``n*v//V`` to ``n*(v+1)//V``.

    ``own`` are the numbers of this process's shards, which follow each other. One process has all of them.
    """

    count: int = 1
    own: range = range(1)

    @classmethod
    def of(cls, count: int, rank: int = 0, processes: int = 1) -> "Sharding":
        """The shards of one process among several; ArgumentError if some would have none."""
        if processes > count:
            raise ArgumentError(
                f"{processes} processes, but this run cuts each batch into {count} shard{'s' * (count > 1)}: "
                f"start at most {count}"
            )
        return cls(count, range(count * rank // processes, count * (rank + 1) // processes))

    def cut(self, samples: int) -> Iterator[tuple[int, int, int]]:
        """Yields (shard, first, size) for each of this process's shards of so many samples."""
        for shard in self.own:
            first = samples * shard // self.count
            yield shard, first, samples * (shard + 1) // self.count - first

    def span(self, samples: int) -> tuple[int, int]:
        """The positions of this process's first sample among so many, and of the one after its last."""
        return samples * self.own.start // self.count, samples * self.own.stop // self.count

    def filled(self, samples: int) -> int:
        """How many shards of so many samples are not empty, those of other processes too."""
        return min(samples, self.count)


WHOLE = Sharding()
"""Batches are not cut."""
