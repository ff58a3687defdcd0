"""Kernel sets: convolution and pooling, batch last, each set held to the same tests."""

from typing import TYPE_CHECKING

from backends.errors import ArgumentError
from backends.kernels.portable import PortableKernels
from backends.kernels.signal import SignalKernels
from backends.kernels.window import Window

if TYPE_CHECKING:
    from backends.backend import Backend

__all__ = ["SETS", "PortableKernels", "SignalKernels", "Window", "make"]

SETS: dict[str, type[PortableKernels]] = {"portable": PortableKernels, "signal": SignalKernels}


def make(name: str, backend: "Backend") -> PortableKernels:
    """The kernel set called ``name``, for ``backend``; "auto" takes the fastest."""
    kernels = PortableKernels if name == "auto" else SETS.get(str(name))
    if kernels is None:
        raise ArgumentError(f"unknown kernels {name!r}: expected auto, {' or '.join(SETS)}")
    return kernels(backend)
