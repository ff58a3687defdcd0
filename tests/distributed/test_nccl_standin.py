"""Arrays of devices travel by NCCL, or by way of the host; stand-ins take the place of GPUs and of NCCL."""

import ctypes
import queue
import sys
import threading
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from helpers.fake_cupy import FakeDevice, FakeStream, fake_cupy
from helpers.standin import StandInBackend
from helpers.together import needed

from backends.cuda.backend import CudaBackend
from cnn.data.sharding import Sharding
from cnn.training.distributed import nccl, tree
from cnn.training.distributed.exchange import Exchange

IDENTITY = (7, 1, 2)
ITEMSIZE = {7: 4, 8: 8}  # of ncclFloat32 and ncclFloat64


class FakeNccl(ModuleType):
    """cupy.cuda.nccl between the threads of this process; ``log`` has the calls of each thread.

    The operations of a group are done at its end, the sends first: none waits for another one of the group.
    Outside of a group, sends and receives are refused.
    """

    NCCL_FLOAT32, NCCL_FLOAT64 = 7, 8
    available = True

    def __init__(self):
        super().__init__("cupy.cuda.nccl")
        self.made = []  # (size, identity, rank, device) of each communicator
        self._channels, self._lock, self.thread = {}, threading.Lock(), threading.local()

    def get_unique_id(self):
        return IDENTITY

    def NcclCommunicator(self, size, identity, rank):  # noqa: N802 - CuPy's name
        self.made.append((size, identity, rank, FakeDevice.current))
        return FakeLink(self, rank, size)

    def groupStart(self):  # noqa: N802 - CuPy's name
        self.note("groupStart")
        self.thread.sends, self.thread.receives = [], []

    def groupEnd(self):  # noqa: N802 - CuPy's name
        self.note("groupEnd")
        for work in self.thread.sends + self.thread.receives:
            work()
        del self.thread.sends, self.thread.receives

    def channel(self, source, target):
        """What is on its way from one process to another, in order."""
        with self._lock:
            return self._channels.setdefault((source, target), queue.SimpleQueue())

    def note(self, *call):
        self.thread.log = [*getattr(self.thread, "log", []), call]

    @property
    def log(self):
        return self.thread.log


class FakeLink:
    """A communicator of :class:`FakeNccl`, which reads and writes memory by its address."""

    def __init__(self, library, rank, size):
        self._library, self._rank, self._size = library, rank, size

    def send(self, pointer, count, kind, peer, stream):
        self._library.note("send", pointer, count, kind, peer, stream)
        self._put(pointer, count * ITEMSIZE[kind], peer)

    def recv(self, pointer, count, kind, peer, stream):
        self._library.note("recv", pointer, count, kind, peer, stream)
        self._fill(pointer, count * ITEMSIZE[kind], peer)

    def broadcast(self, source, target, count, kind, root, stream):
        self._library.note("broadcast", source, target, count, kind, root, stream)
        if root != self._rank:
            self._fill(target, count * ITEMSIZE[kind], root)
        else:
            for peer in {*range(self._size)} - {root}:
                self._put(source, count * ITEMSIZE[kind], peer)

    def allGather(self, source, target, count, kind, stream):  # noqa: N802 - CuPy's name
        self._library.groupStart()
        nbytes = count * ITEMSIZE[kind]
        for peer in range(self._size):
            self._put(source, nbytes, peer)
            self._fill(target + peer * nbytes, nbytes, peer)
        self._library.groupEnd()
        self._library.note("allGather", source, target, count, kind, stream)

    def _put(self, pointer, nbytes, peer):
        data, channel = ctypes.string_at(pointer, nbytes), self._library.channel(self._rank, peer)
        self._library.thread.sends.append(lambda: channel.put(data))

    def _fill(self, pointer, nbytes, peer):
        def work():
            data = self._library.channel(peer, self._rank).get(timeout=60)
            assert len(data) == nbytes
            ctypes.memmove(pointer, data, nbytes)

        self._library.thread.receives.append(work)


@pytest.fixture
def library(monkeypatch):
    """NCCL of the fake CuPy."""
    cupy, library = fake_cupy(2), FakeNccl()
    cupy.cuda.nccl = library
    for name, module in {"cupy": cupy, "cupy.cuda": cupy.cuda, "cupy.cuda.nccl": library}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return library


@pytest.fixture
def staged():
    """The transport by way of the host, whose module imports MPI, which is not started here."""
    import mpi4py

    mpi4py.rc.initialize = mpi4py.rc.finalize = False
    from cnn.training.distributed.transport import StagedTransport

    return StagedTransport


@pytest.fixture
def gpu(library):
    """The second of two fake GPUs."""
    return CudaBackend(1, "portable")


def array(gpu, values, dtype="float32"):
    return gpu.asarray(np.array(values, dtype=dtype))


class TestNccl:
    def test_it_is_there_if_cupy_has_it(self, library):
        assert nccl.is_available()
        library.available = False
        assert not nccl.is_available()

    def test_it_is_missing_without_cupy_and_with_a_cupy_that_was_built_without_it(self, library, monkeypatch):
        monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", None)
        monkeypatch.delattr(sys.modules["cupy"].cuda, "nccl")
        assert not nccl.is_available()
        monkeypatch.setitem(sys.modules, "cupy", None)
        assert not nccl.is_available()

    def test_a_link_is_made_on_the_device_of_the_process_with_the_identity_of_the_first(self, gpu, library):
        assert nccl.identity() == IDENTITY
        transport = nccl.NcclTransport(2, 3, IDENTITY, gpu)
        assert library.made == [(3, IDENTITY, 2, 1)]
        assert transport.size == 3
        assert FakeDevice.current == 0

    def test_it_can_be_part_of_a_captured_step(self, gpu):
        assert nccl.NcclTransport(0, 2, IDENTITY, gpu).is_recordable

    @pytest.mark.parametrize(("dtype", "kind"), [("float32", 7), ("float64", 8)])
    def test_all_sends_and_receives_are_one_group_on_the_current_stream(self, gpu, library, dtype, kind):
        transport = nccl.NcclTransport(0, 3, IDENTITY, gpu)
        vector, rows = array(gpu, range(10), dtype), array(gpu, np.zeros((2, 4)), dtype)
        for peer in (1, 2):
            for _ in range(peer):
                library.channel(peer, 0).put(np.full(4, peer, dtype).tobytes())
        sends = [(vector[4:7], 1, 0), (vector[7:], 2, 0), (vector[:2], 2, 1)]
        current = FakeStream()
        with current:
            transport.exchange(sends, [(rows[0], 1, 0), (rows[1], 2, 0)])
        start, size, stream = vector.data.ptr, vector.itemsize, current.ptr
        assert library.log == [
            ("groupStart",),
            ("send", start + 4 * size, 3, kind, 1, stream),
            ("send", start + 7 * size, 3, kind, 2, stream),
            ("send", start, 2, kind, 2, stream),
            ("recv", rows.data.ptr, 4, kind, 1, stream),
            ("recv", rows.data.ptr + 4 * size, 4, kind, 2, stream),
            ("groupEnd",),
        ]
        np.testing.assert_array_equal(rows, [[1] * 4, [2] * 4])

    def test_each_process_broadcasts_its_part_in_one_group(self, gpu, library):
        transport = nccl.NcclTransport(1, 3, IDENTITY, gpu)
        vector = array(gpu, [0, 1, 2, 3, 4, 5, 6])
        for peer, part in ((0, [7, 8]), (2, [9, 10, 11])):
            library.channel(peer, 1).put(np.array(part, np.float32).tobytes())
        transport.share(vector, [0, 2, 4, 7])
        start, stream = vector.data.ptr, sys.modules["cupy"].cuda.get_current_stream().ptr
        assert library.log == [
            ("groupStart",),
            ("broadcast", start, start, 2, 7, 0, stream),
            ("broadcast", start + 8, start + 8, 2, 7, 1, stream),
            ("broadcast", start + 16, start + 16, 3, 7, 2, stream),
            ("groupEnd",),
        ]
        np.testing.assert_array_equal(vector, [7, 8, 2, 3, 9, 10, 11])

    def test_rows_of_all_are_gathered(self, gpu, library):
        transport = nccl.NcclTransport(0, 2, IDENTITY, gpu)
        own, everyone = array(gpu, [1, 2, 3], "float64"), array(gpu, np.zeros((2, 3)), "float64")
        library.channel(1, 0).put(np.array([4.0, 5, 6]).tobytes())
        transport.gather(own, everyone)
        stream = sys.modules["cupy"].cuda.get_current_stream().ptr
        assert library.log[-1:] == [("allGather", own.data.ptr, everyone.data.ptr, 3, 8, stream)]
        np.testing.assert_array_equal(everyone, [[1, 2, 3], [4, 5, 6]])


class Direct:
    """Carries host arrays between the threads of this process, as :class:`FakeNccl` those of a device."""

    is_recordable = True

    def __init__(self, library, rank, size):
        self.library, self.rank, self.size = library, rank, size

    def exchange(self, sends, receives):
        for values, peer, _ in sends:
            assert type(values) is np.ndarray
            self.library.channel(self.rank, peer).put(values.tobytes())
        for values, peer, _ in receives:
            assert type(values) is np.ndarray
            found = self.library.channel(peer, self.rank).get(timeout=60)
            values[...] = np.frombuffer(found, values.dtype).reshape(values.shape)

    def gather(self, own, everyone):
        self.exchange(
            [(own, peer, 0) for peer in range(self.size)],
            [(row, peer, 0) for peer, row in enumerate(everyone)],
        )

    def share(self, vector, edges):
        parts = [vector[start:stop] for start, stop in pairwise(edges)]
        others = [peer for peer in range(self.size) if peer != self.rank]
        self.exchange(
            [(parts[self.rank], peer, 0) for peer in others], [(parts[peer], peer, 0) for peer in others]
        )


def by_recursion(values):
    """The sum in the order of the tree."""
    if len(values) == 1:
        return values[0]
    cut = max(power for power in (1, 2, 4) if power < len(values))
    return by_recursion(values[:cut]) + by_recursion(values[cut:])


VALUES = np.random.default_rng(0).standard_normal((5, 11)).astype(np.float32)


def sums(processes, backend, make_transport):
    """What each process has after an exchange, which are threads here."""
    found = [None] * processes

    def work(rank):
        vectors = [
            backend.asarray(by_recursion(VALUES[first:stop]))
            for first, stop in tree.nodes(Sharding.of(5, rank, processes).own, 5)
        ]
        add_all = Exchange(make_transport(rank), rank, processes, backend, 5, 11, np.float32)
        add_all(vectors)
        found[rank] = backend.to_host(vectors[0])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("processes", [2, 3, 5])
class TestExchange:
    """The sum has the same bits as on the host."""

    def test_by_nccl(self, processes, gpu):
        found = sums(processes, gpu, lambda rank: nccl.NcclTransport(rank, processes, IDENTITY, gpu))
        np.testing.assert_array_equal(found, [by_recursion(VALUES)] * processes)

    @needed
    def test_by_way_of_the_host(self, processes, staged):
        backend, library = StandInBackend(), FakeNccl()
        found = sums(processes, backend, lambda rank: staged(Direct(library, rank, processes), backend))
        np.testing.assert_array_equal(found, [by_recursion(VALUES)] * processes)


@needed
class TestByWayOfTheHost:
    def test_rows_of_all_are_gathered(self, staged):
        backend, library = StandInBackend(), FakeNccl()
        library.channel(1, 0).put(np.array([4, 5], np.float32).tobytes())
        own, everyone = backend.asarray(np.float32([1, 2])), backend.asarray(np.zeros((2, 2), np.float32))
        transport = staged(Direct(library, 0, 2), backend)
        transport.gather(own, everyone)
        np.testing.assert_array_equal(backend.to_host(everyone), [[1, 2], [4, 5]])
        assert transport.size == 2

    def test_it_is_not_recorded(self, staged):
        assert not staged(Direct(FakeNccl(), 0, 2), StandInBackend()).is_recordable
