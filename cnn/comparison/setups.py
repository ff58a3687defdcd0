"""Setups: a device, a kernel set and, on the CPU, a number of threads."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import product

import backends
from backends import Backend, DeviceUnavailable
from backends.cpu.threads import limit_threads
from backends.kernels import SETS


@dataclass(frozen=True)
class Setup:
    """A device, kernel set and number of threads to compare."""

    backend: Backend
    threads: int | None = None  # None for a GPU

    @property
    def name(self) -> str:
        """The name, for example "cpu portable, 2 threads"."""
        name = f"{self.backend.name} {self.backend.kernels.name}"
        if self.threads is None:
            return name
        return f"{name}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def has_own_memory(self) -> bool:
        """Whether data must be copied to the device."""
        return self.threads is None

    @property
    def leaves_threads_spinning(self) -> bool:
        """Whether idle threads of a BLAS library still use the cores for a while after a step."""
        return self.threads is not None and self.threads > 1 and self.backend.kernels.name != "compiled"

    @contextmanager
    def active(self) -> Iterator[Backend]:
        """Use this setup inside the block; the number of threads is restored after it."""
        limit = nullcontext() if self.threads is None else limit_threads(self.threads)
        with limit, self.backend.active():
            yield self.backend


def setups(
    devices: Sequence[str] | None = None,
    kernels: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
) -> list[Setup]:
    """Every combination of the arguments; the others are compared with the first.

    ``devices=None`` uses every device that works. If that is only the CPU, and no other argument is given,
    its kernel sets and thread counts are compared.

    Raises DeviceUnavailable or ArgumentError if one of them cannot be used.
    """
    if devices is None:
        found = backends.available().items()
        devices = [name for name, device in found if not isinstance(device, DeviceUnavailable)]
    all_threads = cpu_threads()
    if list(devices) == ["cpu"] and kernels is None and threads is None:
        fast = "auto"
        others = [name for name in kernel_sets("cpu") if name != backends.get("cpu").kernels.name]
        chosen = [("cpu", fast, all_threads), ("cpu", fast, 1), *(("cpu", k, all_threads) for k in others)]
    else:
        chosen = list(product(devices, kernels or ["auto"], threads or [all_threads]))
    return list(dict.fromkeys(_setup(*choice) for choice in chosen))


def kernel_sets(device: str, note: Callable[[str], None] = lambda text: None) -> list[str]:
    """The kernel sets of the device; ``note`` is called with the reason if one is missing."""
    found = []
    for name in SETS:
        try:
            backends.get(device, name)
        except DeviceUnavailable as error:
            note(str(error))
        else:
            found.append(name)
    return found


def cpu_threads() -> int:
    """The number of threads that the linear algebra library uses now."""
    return int(backends.get("cpu").describe()["threads"])


def _setup(device: str, kernels: str, threads: int) -> Setup:
    backend = backends.get(device, kernels)
    if backend.name != "cpu":
        return Setup(backend)
    with Setup(backend, threads).active():  # raises an error if the machine does not have so many
        return Setup(backend, threads)
