"""Kernel sets: the arithmetic of a device, batch last. Each set is held to the same tests."""

from collections.abc import Callable

from backends.errors import ArgumentError, DeviceUnavailable
from backends.kernels.contract import Kernels
from backends.kernels.portable import PortableKernels
from backends.kernels.signal import SignalKernels
from backends.kernels.window import Window
from backends.memory import Device
from backends.text import did_you_mean

__all__ = ["SETS", "Kernels", "PortableKernels", "SignalKernels", "Window", "make"]

SETS_ELSEWHERE = {"numba": "compiled", "numpy": "portable", "scipy": "signal", "fast": "compiled"}
SETS = ("compiled", "portable", "signal")


def make(name: str, device: Device, compiled: Callable[[], type[Kernels]]) -> tuple[Kernels, str | None]:
    """The kernel set called ``name``, and why it is slower than it could be (None if it is not).

    ``compiled()`` gives the device's own set or raises DeviceUnavailable; "auto" then takes portable ones.
    """
    if name == "auto":
        try:
            return make("compiled", device, compiled)
        except DeviceUnavailable as error:
            return PortableKernels(device), str(error)
    if name == "compiled":
        return compiled()(device), None
    if name == "portable":
        return PortableKernels(device), None
    if name == "signal":
        return SignalKernels(device), None
    expected = (
        f"expected auto, {', '.join(SETS[:-1])} or {SETS[-1]}{did_you_mean(name, SETS, SETS_ELSEWHERE)}"
    )
    raise ArgumentError(f"unknown kernels {name!r}: {expected}")
