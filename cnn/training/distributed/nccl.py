"""NCCL, which carries arrays between GPUs without the host."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from backends import Backend
from backends.memory import Array
from cnn.training.distributed.exchange import Message


def is_available() -> bool:
    """Whether CuPy finds NCCL."""
    try:
        from cupy.cuda import nccl
    except ImportError:
        return False
    return bool(getattr(nccl, "available", True)) and hasattr(nccl, "NcclCommunicator")


def identity() -> Any:
    """What makes a link of its own; one process makes it for all."""
    from cupy.cuda import nccl

    return nccl.get_unique_id()


class NcclTransport:
    """NCCL on the device's stream, which a CUDA graph can contain. It has not been run on several GPUs."""

    is_recordable = True

    def __init__(self, rank: int, size: int, identity: Any, backend: Backend) -> None:
        import cupy
        from cupy.cuda import nccl

        self._nccl, self._cupy, self.size = nccl, cupy, size
        with backend.active():
            self._link = nccl.NcclCommunicator(size, identity, rank)
        self._types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        stream = self._stream
        self._nccl.groupStart()
        for array, peer, _ in sends:
            self._link.send(array.data.ptr, array.size, self._types[array.dtype.name], peer, stream)
        for array, peer, _ in receives:
            self._link.recv(array.data.ptr, array.size, self._types[array.dtype.name], peer, stream)
        self._nccl.groupEnd()

    def gather(self, own: Array, everyone: Array) -> None:
        kind = self._types[own.dtype.name]
        self._link.allGather(own.data.ptr, everyone.data.ptr, own.size, kind, self._stream)

    def share(self, vector: Array, edges: Sequence[int]) -> None:
        # each process broadcasts its part, since the parts may differ in size
        stream, kind = self._stream, self._types[vector.dtype.name]
        self._nccl.groupStart()
        for process, (start, stop) in enumerate(pairwise(edges)):
            place = vector[start:stop].data.ptr
            self._link.broadcast(place, place, stop - start, kind, process, stream)
        self._nccl.groupEnd()

    @property
    def _stream(self) -> int:
        return int(self._cupy.cuda.get_current_stream().ptr)
