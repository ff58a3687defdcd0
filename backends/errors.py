"""What a backend refuses or fails of, each in one sentence that says what to do."""

from backends.text import readable_bytes


class Notice(UserWarning, RuntimeWarning):
    """A warning of this project's own: a sentence that its user should read."""


class DeviceUnavailable(RuntimeError):
    """The device that was asked for cannot be used; the message says what failed: and what mends it."""

    @property
    def cause(self) -> str:
        """The message without the mend, which follows its last colon."""
        return str(self).rpartition(": ")[0] or str(self)


class DeviceLost(RuntimeError):
    """The device failed in the middle of work, and this process can use it no more."""


class OutOfMemory(RuntimeError):
    """``requested`` bytes did not fit where ``free`` ones were left; None for what nobody knows."""

    def __init__(self, device: str, requested: int | None, free: int | None, mend: str) -> None:
        super().__init__(device, requested, free, mend)  # what an error goes to another process as
        self.device = device
        self.requested = requested
        self.free = free
        self.mend = mend

    def __str__(self) -> str:
        known = []
        if self.requested is not None:
            known.append(f"{readable_bytes(self.requested)} were asked for")
        if self.free is not None:
            known.append(f"{readable_bytes(self.free)} are free")
        found = f"{' and '.join(known)}; " if known else ""
        return f"{self.device} is out of memory: {found}{self.mend}"


class ArgumentError(ValueError):
    """An argument outside what is possible; the message names it, its value and what was expected."""
