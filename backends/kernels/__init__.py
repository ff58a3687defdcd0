"""Kernel sets, batch last, each held to the same tests."""

from typing import TYPE_CHECKING

from backends.errors import ArgumentError, DeviceUnavailable
from backends.kernels.portable import PortableKernels
from backends.kernels.signal import SignalKernels
from backends.kernels.window import Window
from backends.text import did_you_mean

if TYPE_CHECKING:
    from backends.backend import Backend

__all__ = ["SETS", "PortableKernels", "SignalKernels", "Window", "make"]

SETS_ELSEWHERE = {"numba": "compiled", "numpy": "portable", "scipy": "signal", "fast": "compiled"}
SETS = ("compiled", "portable", "signal")


def make(name: str, backend: "Backend") -> PortableKernels:
    """The kernel set called ``name``, for ``backend``; "auto" takes the fastest that it has.

    Raises DeviceUnavailable where "compiled" is asked for and cannot be had.
    """
    if name == "compiled":
        return backend.compiled_kernels()(backend)
    if name == "portable":
        return PortableKernels(backend)
    if name == "signal":
        return SignalKernels(backend)
    if name == "auto":
        try:
            return backend.compiled_kernels()(backend)
        except DeviceUnavailable as error:
            backend.slower = str(error)
            return PortableKernels(backend)
    expected = (
        f"expected auto, {', '.join(SETS[:-1])} or {SETS[-1]}{did_you_mean(name, SETS, SETS_ELSEWHERE)}"
    )
    raise ArgumentError(f"unknown kernels {name!r}: {expected}")
