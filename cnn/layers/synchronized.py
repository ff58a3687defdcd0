"""Batch normalization over the shards of all processes that train together."""

from itertools import pairwise
from math import prod
from typing import Any, Protocol

from backends.graph import launch
from backends.memory import Array


class Peers(Protocol):
    """The processes that train together; each has one shard of a batch."""

    @property
    def size(self) -> int:
        """How many there are."""

    def gather(self, own: Array, everyone: Array) -> None:
        """``everyone`` (processes, n) = the arrays ``own`` (n,) of all processes, in their order."""


class Link:
    """Connects the layers of a network with those in other processes, while they train it together."""

    peers: Peers | None = None  # None: the whole batch is here
    samples = 0  # of the whole batch


def join_moments(layer: Any, peers: Peers, x: Array, mean: Array, variance: Array) -> None:
    """``mean`` and ``variance`` (C,) of ``x`` (C, ..., n) become those of the whole batch.

    The means and variances of the shards are joined in their order, by the law of total variance (Chan et
    al. 1983, equations 2.1).
    """
    channels = len(mean)
    own = layer.buffer("own moments", (2 * channels,), layer.master_dtype)
    everyone = layer.buffer("all moments", (peers.size, 2 * channels), layer.master_dtype)
    samples = layer.context.link.samples
    edges = [samples * number // peers.size for number in range(peers.size + 1)]
    shares = layer.backend.asarray([[(b - a) / samples] for a, b in pairwise(edges)], layer.master_dtype)
    launch(_write, own, mean, variance)
    launch(peers.gather, own, everyone)
    launch(_join, everyone, shares, mean, variance)


def join_sums(layer: Any, peers: Peers, x: Array, along: Array, total: Array) -> None:
    """The sums (C,) over the numbers of ``x`` (C, ..., n) become means over the whole batch."""
    channels = len(along)
    own = layer.buffer("own sums", (2 * channels,), layer.master_dtype)
    everyone = layer.buffer("all sums", (peers.size, 2 * channels), layer.master_dtype)
    count = layer.context.link.samples * prod(x.shape[1:-1])
    launch(_write, own, along, total)
    launch(peers.gather, own, everyone)
    launch(_average, everyone, count, along, total)


def _write(own: Array, first: Array, second: Array) -> None:
    own[: len(first)], own[len(first) :] = first, second


def _join(everyone: Array, shares: Array, mean: Array, variance: Array) -> None:
    means, variances = everyone[:, : len(mean)], everyone[:, len(mean) :]
    mean[...] = (shares * means).sum(axis=0)
    variance[...] = (shares * (variances + (means - mean) ** 2)).sum(axis=0)


def _average(everyone: Array, count: int, along: Array, total: Array) -> None:
    means = everyone.sum(axis=0) / count
    along[...], total[...] = means[: len(along)], means[len(along) :]


def scaled(weight: Array | None, variance: Array, epsilon: float, factor: Array, out: Array) -> None:
    """``out = -factor * weight / sqrt(variance + epsilon)``."""
    scale = 1 / (variance + epsilon) ** 0.5
    out[...] = -factor * (scale if weight is None else scale * weight)
