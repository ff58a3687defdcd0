"""How much memory a call takes at its peak."""

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESET, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
}  # else freed memory is kept and reused


class Peak:
    """Bytes: what Python and NumPy asked for or, on Linux, what the process took, whichever is more.

    The first counts what nobody has touched yet; the second sees libraries in C and Rust too.
    """

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure what the block takes beyond what there was before."""
        before = _restart()
        tracemalloc.start()
        try:
            yield
        finally:
            asked_for = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.bytes = max(asked_for, _taken("VmHWM") - before)


def limit_to(more: int) -> None:
    """Let the process have ``more`` bytes of addresses than it has now, where the system can: a backstop."""
    if not STATUS.exists():
        return
    import resource

    size, (_, most) = _taken("VmSize") + more, resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (size if most == resource.RLIM_INFINITY else min(size, most), most)
    )


def _restart() -> int:
    """Forget the highest mark; -> what the process has now."""
    if os.access(RESET, os.W_OK):
        RESET.write_text("5")
    return _taken("VmRSS")


def _taken(kind: str) -> int:
    """A figure of the kernel's; 0 where it tells none."""
    if not os.access(RESET, os.W_OK):
        return 0
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{kind}:"))
    return 1024 * int(line.split()[1])
