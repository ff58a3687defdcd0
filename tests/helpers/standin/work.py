"""What the stand-in device is asked for: counted, and done at once or whenever a recording is launched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backends.errors import OutOfMemory


@dataclass
class Counters:
    """What happened on the stand-in device, whichever backend object was used."""

    synchronizations: int = 0
    allocated_bytes: int = 0
    largest_allocation: int = 0
    live_bytes: int = 0
    elsewhere: int = 0  # allocations and operations that with two GPUs may be on the wrong one
    limit: int | None = None  # of live_bytes: with more the device is out of memory
    active: int = 0  # how many ``with backend.active()`` are open
    works: int = 0  # what the host asked for: launches, copies, allocations
    graph_launches: int = 0

    def work(self) -> None:
        """Note that the device was asked for something."""
        self.elsewhere += not self.active
        self.works += 1

    def allocate(self, nbytes: int) -> None:
        self.work()
        if self.limit is not None and self.live_bytes + nbytes > self.limit:
            free = max(0, self.limit - self.live_bytes)
            raise OutOfMemory("standin:0", nbytes, free, "use smaller batches")
        self.allocated_bytes += nbytes
        self.largest_allocation = max(self.largest_allocation, nbytes)

    def reset(self) -> None:
        """Start to count from zero; memory that is in use stays in use."""
        self.synchronizations = self.allocated_bytes = self.largest_allocation = 0
        self.elsewhere = self.works = self.graph_launches = 0


counters = Counters()


class ForbiddenWhileRecording(RuntimeError):
    """What a CUDA stream refuses while a graph is recorded on it."""


class Tape:
    """What a graph is recorded as: the work, to be done each time that it is launched, and not before."""

    current: "Tape | None" = None

    def __init__(self) -> None:
        self._works: list[Callable[[], None]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        Tape.current = self
        try:
            yield
        finally:
            Tape.current = None

    def add(self, work: Callable[[], None]) -> None:
        self._works.append(work)

    def launch(self) -> None:
        counters.graph_launches += 1
        for work in self._works:
            work()


def do(work: Callable[[], None]) -> None:
    """Ask the device for something that writes to an array which is there."""
    counters.work()
    if Tape.current is None:
        work()
    else:
        Tape.current.add(work)


def refuse_while_recording(what: str) -> None:
    if Tape.current is not None:
        raise ForbiddenWhileRecording(f"{what} is not permitted when stream is capturing")
