"""The contract that every device keeps."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

from backends import kernels as kernel_sets
from backends import recording
from backends.errors import ArgumentError, DeviceUnavailable
from backends.memory import Array, Buffer, Upload


class Timer(ABC):
    """Measures device time: ``with backend.timer() as timer: ...``, then ``timer.seconds``."""

    @abstractmethod
    def __enter__(self) -> "Timer": ...

    @abstractmethod
    def __exit__(self, *exception: object) -> None: ...

    @property
    @abstractmethod
    def seconds(self) -> float:
        """What the block took on the device, queued work included."""


class Backend(ABC):
    """One device: its array module, its kernels, and the two ways on and off it.

    Arrays of other devices never mix with this one's. Data comes on in :meth:`asarray` and goes
    off in :meth:`to_host`; ``crossings`` counts both.
    """

    xp: ModuleType
    """The array module: numpy or cupy."""
    column_bytes: int
    """How large a block of convolution columns may be: what stays in fast memory."""

    def __init__(self, name: str, kernels: str = "auto") -> None:
        self.name = name
        self.asked: tuple[str, str, bool] = name, kernels, False  # name, kernels, tf32: what makes its like
        self.reason = "asked for"  # why this device was taken
        self.slower: str | None = None  # why the kernels are slower ones than there might be
        self.crossings = 0
        self._thread = threading.local()
        self.kernels = kernel_sets.make(kernels, self)

    def __reduce__(self) -> Any:
        """A device goes to another process by its name; a copy is the device itself."""
        import backends

        return backends.like, self.asked

    @property
    @abstractmethod
    def signal(self) -> ModuleType:
        """scipy.signal or its counterpart, imported when first asked for."""

    @abstractmethod
    def asarray(self, host: Any, dtype: Any = None, out: Array | None = None) -> Array:
        """Bring host data onto the device, as ``dtype`` or into ``out``; it may share memory there."""

    @abstractmethod
    def to_host(self, array: Array) -> Any:
        """A numpy copy of a device array that the caller owns; waits for the device."""

    @abstractmethod
    def owns(self, array: object) -> bool:
        """Whether ``array`` is this device's."""

    @abstractmethod
    def zeros(self, size: int, dtype: Any) -> Array:
        """A vector of zeros that starts on a 256-byte boundary."""

    def empty(self, size: int, dtype: Any) -> Array:
        """A vector of whatever was there, which starts where whole vectors of the processor begin."""
        with self.active():
            return self.xp.empty(size, dtype=dtype)

    @abstractmethod
    def matmul(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> Array:
        """``out = a @ b`` or ``out += a @ b`` for matrices; transposed views are taken as they are."""

    @abstractmethod
    def take(self, array: Array, indices: Array, out: Array) -> Array:
        """``out`` = the rows ``array[indices]``; the caller has checked the indices."""

    def compiled_kernels(self) -> "type[kernel_sets.PortableKernels]":
        """The set compiled for this device; raises DeviceUnavailable where there is none."""
        raise DeviceUnavailable(f"there are no compiled kernels for {self.name}: take auto or portable")

    @staticmethod
    def require_product(a: Array, b: Array, out: Array) -> None:
        """Raise ArgumentError unless ``a @ b`` fits into ``out``."""
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or out.shape != (len(a), b.shape[1]):
            raise ArgumentError(
                f"matmul of {a.shape} and {b.shape} into {out.shape}: expected (m, k) and (k, n) into (m, n)"
            )

    def workspace(self, nbytes: int) -> Array:
        """Scratch bytes, shared by all that runs on this thread and valid until the next call."""
        return self.scratch("workspace", nbytes)

    def scratch(self, name: str, nbytes: int) -> Array:
        """Bytes that this thread keeps under a name; they only grow."""
        buffer = getattr(self._thread, name, None)
        if buffer is None:
            buffer = Buffer(self, self.xp.uint8)
            setattr(self._thread, name, buffer)
        return buffer.view((nbytes,))

    def upload(self, *targets: Array) -> Upload:
        """Host memory to fill these arrays from, again and again."""
        return Upload(self, *targets)

    def has_room(self, nbytes: int) -> bool:
        """Whether a data set so large may lie on the device and leave enough for the rest."""
        return True

    @abstractmethod
    def active(self) -> AbstractContextManager[object]:
        """``with backend.active():`` makes this the device that ``xp`` computes on.

        What leaves the block because a GPU's memory is full is OutOfMemory, because it failed DeviceLost.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all queued work is done."""

    @abstractmethod
    def timer(self) -> Timer:
        """A timer of device time."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes ``used`` by this process and ``total`` on the device."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a bug report needs to know of the device: name, versions, libraries."""

    def run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Call ``function`` for what it does to arrays, and again wherever a recording of now is replayed."""
        function(*arguments, **named)
        made = recording.current()
        if made is not None:
            made.add(function, *arguments, **named)

    def graph(self, step: Callable[[], None], state: Sequence[Array] = ()) -> Callable[[], None]:
        """A callable that repeats ``step`` with the same arrays; here it is ``step`` itself.

        A device that records steps warms up first and then puts the arrays in ``state`` back.
        """
        return step
