"""Devices behind one contract: ``backends.get("cpu")``, ``backends.get("cuda")``.

A backend is usable on its own: ``device.xp`` is numpy or cupy, ``device.signal`` is scipy.signal
or cupyx.scipy.signal, and ``device.asarray`` and ``device.to_host`` are the ways there and back.
"""

from backends import needed  # noqa: F401 - first, since it says so if NumPy cannot be imported
from backends.backend import Backend, Timer
from backends.cpu.backend import CPU, CpuBackend
from backends.cuda.backend import CUDA
from backends.errors import ArgumentError, DeviceLost, DeviceUnavailable, OutOfMemory
from backends.interoperability import of
from backends.kernels import Window
from backends.registry import KINDS, available, get

KINDS.update(cpu=CPU, cuda=CUDA)

__all__ = [
    "ArgumentError",
    "Backend",
    "CpuBackend",
    "DeviceLost",
    "DeviceUnavailable",
    "OutOfMemory",
    "Timer",
    "Window",
    "available",
    "get",
    "of",
]
