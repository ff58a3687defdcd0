"""``fake_cupy`` stands for CuPy where there is no GPU.

numpy arrays with CuPy's attributes, devices that only count, and a ``gemmEx`` that works on raw
addresses, column-major, as cuBLAS documents it.
"""

import ctypes
import weakref
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np

from helpers.foreign_arrays import memory_by_dlpack, memory_by_interface
from helpers.host_cuda import RawModule


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class CUBLASError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    """As CuPy words it."""

    def __init__(self, size, total, limit=0):
        limited = f", limit set to: {limit:,} bytes" if limit else ""
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{limited})."
        )


class DynamicLibNotFoundError(RuntimeError):
    pass


class FakeDevice:
    current = 0
    synchronized = 0
    compute_capability = "90"
    mem_info = (60, 100)

    def __init__(self, index):
        self.id = index
        self.before = []

    def __enter__(self):
        self.before.append(FakeDevice.current)
        FakeDevice.current = self.id

    def __exit__(self, *exception):
        FakeDevice.current = self.before.pop()

    def synchronize(self):
        FakeDevice.synchronized += 1


class FakeArray(np.ndarray):
    """Host memory that says it is on the device that was current when it was made."""

    def __array_finalize__(self, parent):
        self.index = parent.index if isinstance(parent, FakeArray) else FakeDevice.current

    @property
    def device(self):
        return SimpleNamespace(id=self.index)

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, host, stream=None):
        if stream is not None:
            stream.log.append("copy")
        assert type(host) is np.ndarray
        assert (host.dtype, host.shape) == (self.dtype, self.shape)
        assert self.flags.forc
        self[...] = host


class FakeStream:
    """Does what it is asked at once, and notes what that was."""

    current = None

    def __init__(self, non_blocking=False):
        self.log = []
        self.ptr = 7000 + id(self) % 1000
        self.non_blocking = non_blocking

    def __enter__(self):
        self.before, FakeStream.current = FakeStream.current, self

    def __exit__(self, *exception):
        FakeStream.current = self.before

    def begin_capture(self):
        self.log.append("begin")

    def end_capture(self):
        self.log.append("end")
        return FakeGraph(self.log)

    def synchronize(self):
        self.log.append("synchronize")

    def wait_event(self, event):
        self.log.append(f"wait for {event.recorded}")


class FakeGraph:
    def __init__(self, log):
        self.log = log

    def upload(self, stream):
        self.log.append("upload")

    def launch(self):
        self.log.append("launch")


class FakeEvent:
    def __init__(self, disable_timing=False):
        self.recorded = None

    def record(self, stream=None):
        self.recorded = "copies" if stream else "work"

    def synchronize(self):
        pass


class FakePool:
    """Takes memory of the current device and keeps what comes back, as CuPy's; a pool that goes leaks it."""

    current = None
    taken: ClassVar = Counter()  # bytes of each device, in all pools that there are or were

    def __init__(self):
        self.held, self.free = Counter(), Counter()  # bytes of each device

    def malloc(self, nbytes):
        device = FakeDevice.current
        reused = min(nbytes, self.free[device])
        self.free[device] -= reused
        self.held[device] += nbytes - reused
        FakePool.taken[device] += nbytes - reused
        return PooledMemory(self, device, nbytes)

    def total_bytes(self):
        return self.held[FakeDevice.current]

    def free_all_blocks(self):
        device = FakeDevice.current
        FakePool.taken[device] -= self.free[device]
        self.held[device] -= self.free[device]
        self.free[device] = 0


class PooledMemory:
    def __init__(self, pool, device, nbytes):
        self.pool, self.device, self.nbytes = weakref.ref(pool), device, nbytes
        self.memory = np.zeros(nbytes, np.uint8)
        self.ptr = self.memory.ctypes.data

    def __del__(self):
        pool = self.pool()
        if pool is not None:
            pool.free[self.device] += self.nbytes


class using_allocator:  # noqa: N801 - CuPy's name
    def __init__(self, malloc):
        self.pool = malloc.__self__

    def __enter__(self):
        self.before, FakePool.current = FakePool.current, self.pool

    def __exit__(self, *exception):
        FakePool.current = self.before


def gemm_ex(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, *how):
    """C = alpha op(A) op(B) + beta C, column-major, with (compute, algorithm) as ``how``."""
    # NVIDIA's table of the types that may meet: A and B, C, and the sums
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    types = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16"}
    assert a_type == b_type
    assert c_type == a_type or (c_type == 0 and a_type in (2, 14))
    assert how == (70 if a_type == 1 else 68, -1)
    sums = double if a_type == 1 else single

    def matrix(address, kind, rows, columns, leading):
        dtype = np.dtype(types[kind])
        assert leading >= rows > 0
        assert columns > 0
        size = ((columns - 1) * leading + rows) * dtype.itemsize
        numbers = np.frombuffer((ctypes.c_byte * size).from_address(address), dtype)
        return np.lib.stride_tricks.as_strided(
            numbers, (rows, columns), (dtype.itemsize, leading * dtype.itemsize)
        )

    a = matrix(a, a_type, k, m, lda).T if op_a else matrix(a, a_type, m, k, lda)
    b = matrix(b, b_type, n, k, ldb).T if op_b else matrix(b, b_type, k, n, ldb)
    c = matrix(c, c_type, m, n, ldc)
    alpha, beta = (
        np.frombuffer((ctypes.c_byte * sums.itemsize).from_address(p), sums)[0] for p in (alpha, beta)
    )
    product = alpha * (a.astype(sums) @ b.astype(sums))
    c[...] = product + beta * c.astype(sums) if beta else product


DEFAULT_STREAM = FakeStream()


def copy_into(array, out=None):
    """As cupy.asnumpy: a copy in host memory, or into ``out``."""
    if out is None:
        return np.array(array)
    np.copyto(out, array)
    return out


def on_gpu(array):
    """As cupy.from_dlpack: the memory of another library's array, on its GPU."""
    kind, index = array.__dlpack_device__()
    assert kind == 2
    shared = memory_by_dlpack(array).view(FakeArray)
    shared.index = index
    return shared


def fake_cupy(devices=1, gemm=gemm_ex):
    """``devices`` is a number, or what asking for it raises; other libraries use the last of them."""

    def device_count():
        if isinstance(devices, Exception):
            raise devices
        return devices

    def on_device(function):
        def make(*args, **kwargs):
            host = function(*args, **kwargs)
            array = FakeArray(host.shape, host.dtype)  # the owner of its memory, as CuPy's
            array[...] = host
            if FakePool.current is not None:
                array.memory = FakePool.current.malloc(array.nbytes)
            return array

        return make

    cupy = ModuleType("cupy")
    cupy.__getattr__ = lambda name: getattr(np, name)
    cupy.__version__ = "14.2.0"
    cupy.ndarray = FakeArray
    for name in ("arange", "empty", "ones", "zeros"):
        setattr(cupy, name, on_device(getattr(np, name)))
    copy = on_device(lambda host, dtype=None: np.array(host, dtype=dtype))

    def asarray(a, dtype=None):
        if hasattr(a, "__cuda_array_interface__"):  # shared whatever its dtype is, bytes included
            a = memory_by_interface(a).view(FakeArray)
            a.index = devices - 1
        stays = isinstance(a, FakeArray) and a.index == FakeDevice.current and dtype in (None, a.dtype)
        return a if stays else copy(a, dtype)

    cupy.asarray = asarray
    cupy.ascontiguousarray = lambda a, dtype=None: np.asanyarray(a, dtype=dtype, order="C")
    cupy.asnumpy = copy_into
    cupy.from_dlpack = on_gpu
    pool = SimpleNamespace(
        total_bytes=lambda: 30,
        used_bytes=lambda: 20,
        free_bytes=lambda: 10,
        get_limit=lambda: 0,
        free_all_blocks=lambda: None,
    )
    cupy.get_default_memory_pool = lambda: pool
    cupy.RawModule = RawModule
    cupy.cuda = SimpleNamespace(
        Device=FakeDevice,
        Event=FakeEvent,
        MemoryPool=FakePool,
        Stream=FakeStream,
        alloc_pinned_memory=bytearray,
        get_current_stream=lambda: FakeStream.current or DEFAULT_STREAM,
        using_allocator=using_allocator,
        cublas=SimpleNamespace(
            gemmEx=gemm,
            getVersion=lambda handle: 120902,
            CUBLAS_COMPUTE_32F=68,
            CUBLAS_COMPUTE_32F_FAST_TF32=77,
            CUBLAS_COMPUTE_64F=70,
            CUBLAS_GEMM_DEFAULT=-1,
        ),
        get_cublas_handle=lambda: 1,
        runtime=SimpleNamespace(
            getDeviceCount=device_count,
            getDeviceProperties=lambda index: {"name": b"A GPU"},
            deviceSynchronize=lambda: DEFAULT_STREAM.log.append("synchronize"),
            driverGetVersion=lambda: 13010,
            pointerGetAttributes=lambda address: SimpleNamespace(device=devices - 1),
            runtimeGetVersion=lambda: 12090,
        ),
    )
    return cupy


def raiser(error):
    def gemm(*args):
        raise error

    return gemm


def wrong_gemm(*args):
    """One too much everywhere."""
    gemm_ex(*args)
    m, n, address = args[3], args[4], args[14]
    product = np.frombuffer((ctypes.c_byte * (4 * m * n)).from_address(address), np.float32)
    product += 1
