"""The order in which the shards' gradients are added: a binary tree over their numbers.

A node of n shards is cut after the largest power of two below n. Floating-point sums depend on their order,
so this fixed order gives the same bits however many processes the shards are on: a process sends the sums of
the largest subtrees that it has whole, and only those.
"""

from collections.abc import Callable
from typing import TypeVar

Sum = TypeVar("Sum")
Node = tuple[int, int]
"""The first shard of a subtree, and the one after its last."""


def middle(first: int, stop: int) -> int:
    """Where the node of these shards is cut."""
    return first + (1 << ((stop - first - 1).bit_length() - 1))


def nodes(own: range, shards: int) -> list[Node]:
    """The largest subtrees over ``shards`` that are in the range ``own``, in their order."""
    return list(_inside(own, 0, shards))


def _inside(own: range, first: int, stop: int) -> list[Node]:
    if stop <= own.start or own.stop <= first:
        return []
    if own.start <= first and stop <= own.stop:
        return [(first, stop)]
    cut = middle(first, stop)
    return _inside(own, first, cut) + _inside(own, cut, stop)


def add_up(parts: dict[Node, Sum], shards: int, add: Callable[[Sum, Sum], Sum]) -> Sum:
    """The sum over all shards, from the sums of subtrees that cover them."""

    def total(first: int, stop: int) -> Sum:
        if (first, stop) in parts:
            return parts[first, stop]
        cut = middle(first, stop)
        return add(total(first, cut), total(cut, stop))

    return total(0, shards)
