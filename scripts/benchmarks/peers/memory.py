"""How much memory a training takes: what its process grows by."""

import re
from contextlib import suppress
from pathlib import Path

import backends
from peers.contenders import CONTENDERS
from peers.peer import Absent
from peers.task import Setting, Task

STEPS = 5
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def growth(setting: Setting, name: str) -> int | None:
    """Bytes between before the network is built and the peak of the training; None where it is absent.

    To be called in a process of its own.
    """
    try:
        start = CONTENDERS[name].load(setting.device)
    except Absent:
        return None
    task = Task(setting)
    with suppress(OSError):  # the imports' own peak is forgotten where the system can do that
        CLEAR.write_text("5")
    before = resident_bytes()
    peer = start(task)
    for _ in range(STEPS):
        peer.step()
    return peak_bytes() - before


def resident_bytes() -> int:
    """What of this process is in memory now."""
    return backends.get("cpu").memory()["used"]


def peak_bytes() -> int:
    """The most that ever did."""
    try:
        (kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
    except OSError:
        return resident_bytes()  # which is the peak where there is no /proc
    return int(kilobytes) * 1024
