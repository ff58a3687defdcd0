"""The contract that every device keeps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from backends import kernels as kernel_sets
from backends.dtypes import HALVES
from backends.errors import ArgumentError, DeviceUnavailable
from backends.graph import RepeatedStep
from backends.kernels import Kernels
from backends.libraries import require
from backends.memory import Array, Device

__all__ = ["Array", "Backend", "Timer"]


class Timer(ABC):
    """Measures device time: ``with backend.timer() as timer: ...``, then ``timer.seconds``."""

    @abstractmethod
    def __enter__(self) -> "Timer": ...

    @abstractmethod
    def __exit__(self, *exception: object) -> None: ...

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Seconds that the block took on the device, queued work included."""


class Backend(Device):
    """One device: its arrays, its kernels, repeated steps, and what it says about itself."""

    def __init__(self, name: str, kernels: str = "auto") -> None:
        super().__init__()
        self.name = name
        self.asked: tuple[str, str, bool] = name, kernels, False  # name, kernels, tf32: makes an equal one
        self.reason = "asked for"  # why this device was chosen
        self.kernels, self.slower = kernel_sets.make(kernels, self, self.compiled_kernels)
        """``slower`` says why the kernels are slower than they could be; None if they are not."""

    def __reduce__(self) -> Any:
        """Pickle the device by its name; a copy is the device itself."""
        from backends.registry import like

        return like, self.asked

    def require_support(self, dtype: str) -> None:
        """Raise ArgumentError unless the device computes with numbers of this dtype."""
        if dtype not in HALVES:
            return
        if not self.has_halves:
            raise ArgumentError(
                f"dtype is {dtype}, expected float32 or float64 on {self.name}: "
                "only CUDA GPUs compute in 16 bits"
            )
        if dtype == "bfloat16":
            require("ml_dtypes", "for bfloat16")  # NumPy and CuPy know the dtype once it is imported

    def compiled_kernels(self) -> type[Kernels]:
        """The kernel set compiled for this device; raises DeviceUnavailable if there is none."""
        raise DeviceUnavailable(f"there are no compiled kernels for {self.name}: take auto or portable")

    def graph(self, step: Callable[[], None], state: Sequence[Array] = ()) -> Callable[[], None]:
        """A callable that repeats ``step``, which must use the same arrays each time.

        The device records what the step does and then does it without asking Python again. A device that
        has to warm up first restores the arrays in ``state`` afterwards. The CPU records a step that
        :func:`backends.graph.recordable` declares to be made of kernels, and calls any other one again.
        """
        if not getattr(step, "recordable", False):
            return step
        return RepeatedStep(step, self.stamp, self.kernels.prepare)

    def stamp(self) -> Hashable:
        """A value that changes when a recorded step is no longer valid, for example if a buffer has moved."""
        return self.allocations

    def has_room(self, nbytes: int) -> bool:
        """Whether a data set of this size fits on the device and leaves enough memory for the rest."""
        return True

    def index_of(self, address: int) -> int:
        """The number, among devices of this kind, of the one whose memory has this address."""
        return 0

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
