"""The processes that train together, and what they tell each other outside of a training step."""

import hashlib
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np

from backends import Backend
from cnn.support.arguments import number, whole
from cnn.support.errors import ArgumentError, CheckpointError, DataError, ShapeError, TrainingError
from cnn.support.text import short
from cnn.training.distributed import launcher, nccl
from cnn.training.distributed.exchange import Exchange, Transport
from cnn.training.distributed.watchdog import Watchdog

Result = TypeVar("Result")

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in what Python says of an object without a __repr__
PIECE = 1 << 16  # numbers
TIMEOUT = 60.0  # seconds that a process waits for the others
_KINDS = {
    kind.__name__: kind for kind in (ArgumentError, CheckpointError, DataError, ShapeError, TrainingError)
}


class Communicator:
    """The processes that train together: make one with :func:`cnn.distributed.communicator`.

    ``rank`` is this process's number, from 0, and ``size`` the number of processes. ``shards`` is the number
    of parts that each batch is cut into; None: as many as there are processes, or as the run began with.
    """

    def __init__(self, mpi: Any = None, shards: int | None = None, timeout: float = TIMEOUT) -> None:
        self._mpi = mpi  # the communicator of mpi4py; None: this process is alone
        self.rank: int = 0 if mpi is None else mpi.rank
        self.size: int = 1 if mpi is None else mpi.size
        self.shards = None if shards is None else whole("shards", shards)
        self._transports: dict[str, Transport] = {}  # by device
        self.host = socket.gethostname()
        if not number("timeout", timeout):
            raise ArgumentError("timeout is 0, expected a number of seconds above 0")
        rank = launcher.rank() if mpi is None else self.rank  # before MPI has been started
        self.watchdog = Watchdog(self.name_of(rank, self.host), rank, timeout)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that reads, writes and prints for all."""
        return self.rank == 0

    @staticmethod
    def name_of(rank: int, host: str) -> str:
        """How messages call a process."""
        return f"process {rank} on {host}"

    def gather(self, value: Result) -> list[Result]:
        """The values of all processes, in their order."""
        if self._mpi is None:
            return [value]
        with self.watchdog:
            return list(self._mpi.allgather(value))

    def first(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives in process 0, for all; its error for all if it fails there."""
        if self._mpi is None:
            return work()
        with self.together():
            result = work() if self.is_first else None
        with self.watchdog:
            return cast(Result, self._mpi.bcast(result))

    @contextmanager
    def together(self) -> Iterator[None]:
        """At the end of the block, the error of one process is raised in all of them.

        The block must not exchange anything with the other processes.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if self._mpi is None:
                raise
            failure = error
        told = None if failure is None else (type(failure).__name__, str(failure), self.host)
        for rank, found in enumerate(self.gather(told)):
            if found is None:
                continue
            if failure is not None and rank == self.rank:
                raise failure
            name, text, host = found
            raise _KINDS.get(name, ArgumentError)(
                text if rank == 0 else f"{self.name_of(rank, host)}: {text}"
            )

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Raise ArgumentError unless all processes give the same facts, which name what they are about."""
        told = {name: ADDRESS.sub("", repr(value)) for name, value in facts.items()}
        everyone = self.gather((self.host, told))
        host, expected = everyone[0]
        for rank, (other, found) in enumerate(everyone):
            for name, value in expected.items():
                if found.get(name) != value:
                    raise ArgumentError(
                        f"{self.name_of(rank, other)} has {name} {short(str(found.get(name)), 100)}, "
                        f"{self.name_of(0, host)} has {short(value, 100)}: start all processes with the same"
                    )

    def exchange(self, backend: Backend, shards: int, size: int, dtype: Any) -> Exchange | None:
        """What adds vectors of this size over all processes; None if this process is alone."""
        if self._mpi is None:
            return None
        return Exchange(self.transport(backend), self.rank, self.size, backend, shards, size, dtype)

    def transport(self, backend: Backend) -> Transport:
        """What carries arrays of this device to the other processes."""
        if backend.name not in self._transports:
            self._transports[backend.name] = self._make_transport(backend)
        return self._transports[backend.name]

    def _make_transport(self, backend: Backend) -> Transport:
        from cnn.training.distributed.transport import HostTransport, StagedTransport  # which need MPI

        host = HostTransport(self._mpi, self.watchdog)
        if backend.name == "cpu":
            return host
        if all(self.gather(nccl.is_available())):
            return nccl.NcclTransport(self.rank, self.size, self.first(nccl.identity), backend)
        return StagedTransport(host, backend)

    def gather_rows(self, rows: Any, own: range) -> None:
        """Fill ``rows``, an array on the host, with the ``own`` rows of every process."""
        if self._mpi is None:
            return
        for values, place in self.gather((rows[own.start : own.stop], own)):
            rows[place.start : place.stop] = values

    def any_of(self, word: int) -> "PendingWord":
        """Send a word of bits to all, without waiting; what is returned waits for those of all."""
        return PendingWord(self, word)


class PendingWord:
    """A word of bits that is on its way to all processes."""

    def __init__(self, group: Communicator, word: int) -> None:
        self._word = np.array([word], dtype=np.int64)
        self._group, self._request = group, None
        if group._mpi is not None:
            from mpi4py import MPI

            self._result = np.zeros_like(self._word)
            self._request = group._mpi.Iallreduce(self._word, self._result, MPI.BOR)

    def wait(self) -> int:
        """The bits that are set in any process."""
        if self._request is None:
            return int(self._word[0])
        with self._group.watchdog:
            self._request.Wait()
        return int(self._result[0])


def digest(backend: Backend, arrays: Iterable[Any]) -> str:
    """A short checksum of arrays on the device, which come to the host in small pieces."""
    found = hashlib.sha256()
    for array in arrays:
        numbers = array.reshape(-1)
        for first in range(0, len(numbers), PIECE):
            found.update(backend.to_host(numbers[first : first + PIECE]).data)
    return found.hexdigest()[:16]
