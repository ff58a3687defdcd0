"""Carries arrays between processes: MPI for memory of the host, and for devices by way of the host."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from mpi4py import MPI

from backends import Backend
from backends.memory import Array
from cnn.training.distributed.exchange import Message, Transport
from cnn.training.distributed.watchdog import Watchdog

TYPES = {np.dtype("float32"): MPI.FLOAT, np.dtype("float64"): MPI.DOUBLE}


class HostTransport:
    """MPI, for NumPy's arrays."""

    is_recordable = True  # as calls of Python, which is how the CPU repeats a step

    def __init__(self, mpi: Any, watchdog: Watchdog) -> None:
        self._mpi, self._watchdog = mpi, watchdog

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        requests = [self._mpi.Irecv(array, peer, number) for array, peer, number in receives]
        requests += [self._mpi.Isend(array, peer, number) for array, peer, number in sends]
        with self._watchdog:
            MPI.Request.Waitall(requests)

    @property
    def size(self) -> int:
        return int(self._mpi.size)

    def gather(self, own: Array, everyone: Array) -> None:
        with self._watchdog:
            self._mpi.Allgather(own, everyone)

    def share(self, vector: Array, edges: Sequence[int]) -> None:
        counts = [stop - start for start, stop in pairwise(edges)]
        with self._watchdog:
            self._mpi.Allgatherv(MPI.IN_PLACE, [vector, counts, list(edges[:-1]), TYPES[vector.dtype]])


class StagedTransport:
    """Another transport for the arrays of a device, which are copied to the host and back."""

    is_recordable = False  # a device's graph cannot contain the waiting on the host

    def __init__(self, host: Transport, backend: Backend) -> None:
        self._host, self._backend = host, backend

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        to_host = self._backend.to_host
        own = [(np.ascontiguousarray(to_host(array)), peer, number) for array, peer, number in sends]
        others = [(np.empty(array.shape, array.dtype), peer, number) for array, peer, number in receives]
        self._host.exchange(own, others)
        for (array, _, _), (found, _, _) in zip(receives, others, strict=True):
            self._backend.asarray(found, out=array)

    @property
    def size(self) -> int:
        return self._host.size

    def gather(self, own: Array, everyone: Array) -> None:
        found = np.empty(everyone.shape, everyone.dtype)
        self._host.gather(np.ascontiguousarray(self._backend.to_host(own)), found)
        self._backend.asarray(found, out=everyone)

    def share(self, vector: Array, edges: Sequence[int]) -> None:
        found = np.ascontiguousarray(self._backend.to_host(vector))
        self._host.share(found, edges)
        self._backend.asarray(found, out=vector)
