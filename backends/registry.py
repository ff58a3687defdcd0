"""The table of devices: each has a name, is made when it is first asked for, and is kept."""

import os
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

from backends.backend import Backend
from backends.cpu.threads import limit_threads
from backends.errors import ArgumentError, DeviceUnavailable, Notice
from backends.memory import Array
from backends.text import did_you_mean

DEVICES = ("auto", "cpu", "cuda")
DEVICES_ELSEWHERE = {"gpu": "cuda", "nvidia": "cuda", "gpu:0": "cuda:0", "cuda0": "cuda:0", "0": "cuda:0"}


class Kind(NamedTuple):
    """A row of the table: one kind of device, such as "cuda"."""

    names: Callable[[], list[str]]
    """The names of the devices of this kind; raises DeviceUnavailable if there are none."""
    make: Callable[[str, str, bool], Backend]
    """(name, kernels, tf32) -> the device; raises DeviceUnavailable if it cannot be used."""
    holder: Callable[[object], str | None]
    """The name of the device that an array is on; None if it is on no device of this kind."""


KINDS: dict[str, Kind] = {}
"""The table, which ``backends/__init__.py`` fills."""

_made: dict[tuple[str, str, bool], Backend] = {}


def get(spec: str = "auto", kernels: str = "auto", threads: int | None = None, tf32: bool = False) -> Backend:
    """The backend for ``spec``: "auto", "cpu", "cuda" or "cuda:N".

    "auto" takes what the environment variable CNN_DEVICE names, else CUDA where it works, else the
    CPU; the backend's ``reason`` says which and why. An explicit "cuda" never falls back.
    ``kernels`` is "auto", "compiled", "portable" or "signal". ``threads`` limits the linear algebra library
    and the compiled kernels of the whole process; None leaves it as it is: as many as there are cores, or
    fewer if a CPU quota, OMP_NUM_THREADS or NUMBA_NUM_THREADS says so. ``tf32`` lets a GPU round the factors
    of float32 products to 10 bits (NVIDIA's TF32), which its tensor cores are faster with.

    Raises DeviceUnavailable where the device cannot be used, ArgumentError for a name that is none.
    """
    asked = spec
    if spec == "auto":
        asked = os.environ.get("CNN_DEVICE") or "auto"
    if not isinstance(asked, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        where = "" if asked == spec else " in the environment variable CNN_DEVICE"
        expected = f"expected auto, cpu, cuda or cuda:N{did_you_mean(asked, DEVICES, DEVICES_ELSEWHERE)}"
        raise ArgumentError(f"unknown device {asked!r}{where}: {expected}")
    if threads is not None:
        limit_threads(threads)
    if asked == "auto":
        return _best(kernels, tf32)
    return named(asked, kernels, tf32, "asked for" if asked == spec else "set by CNN_DEVICE")


def named(name: str, kernels: str = "auto", tf32: bool = False, reason: str | None = None) -> Backend:
    """The device "cpu", "cuda" or "cuda:N"; raises DeviceUnavailable if it cannot be used."""
    name, kernels = "cuda:0" if name == "cuda" else name, str(kernels)
    key = name, kernels, tf32 and name != "cpu"
    if key not in _made:
        _made[key] = _make(*key)
    backend = _made[key]
    with backend.active():  # raises DeviceUnavailable if this process was forked and the device did not come
        backend.reason = reason or backend.reason
    return backend


def like(name: str, kernels: str, tf32: bool) -> Backend:
    """The device of this name that was pickled in another process.

    If this process does not have it, the one that "auto" takes instead, with a warning.
    """
    try:
        return named(name, kernels, tf32)
    except DeviceUnavailable as error:
        backend = get("auto", "auto" if kernels == "compiled" else kernels, tf32=tf32)
        asked = f"{name} with {kernels} kernels"
        warnings.warn(
            f"{asked} cannot be used in this process, which takes {backend.name} instead: {error}",
            Notice,
            stacklevel=2,
        )
        return backend


def owner(array: Array) -> Backend | None:
    """The backend that an array of NumPy or CuPy is on; None for anything else."""
    for backend in list(_made.values()):
        if backend.owns(array):
            return backend
    for kind in KINDS.values():
        name = kind.holder(array)
        if name is not None:
            return named(name)
    return None


def available() -> dict[str, Backend | DeviceUnavailable]:
    """Every device by name: its backend, or the error that says why it cannot be used."""
    devices: dict[str, Backend | DeviceUnavailable] = {}
    for word, kind in KINDS.items():
        try:
            for name in kind.names():
                devices[name] = named(name)
        except DeviceUnavailable as error:
            devices[word] = error
    return devices


def _best(kernels: str, tf32: bool) -> Backend:
    try:
        return named("cuda:0", kernels, tf32, "CUDA works here")
    except DeviceUnavailable as error:
        return named("cpu", kernels, tf32, f"no CUDA: {error.cause}")


def _make(name: str, kernels: str, tf32: bool) -> Backend:
    return KINDS[name.partition(":")[0]].make(name, kernels, tf32)
