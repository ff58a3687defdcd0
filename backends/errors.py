"""The exceptions of backends. Each message is one sentence that says what to do."""

from backends.text import readable_bytes


class Notice(UserWarning, RuntimeWarning):
    """A warning of this library: a sentence for its user."""


class DeviceUnavailable(RuntimeError):
    """The requested device cannot be used; the message says what failed and, after a colon, what to do."""

    @property
    def cause(self) -> str:
        """The message without the advice, which follows its last colon."""
        return str(self).rpartition(": ")[0] or str(self)


class DeviceLost(RuntimeError):
    """The device failed during work, and this process cannot use it any more."""


class OutOfMemory(RuntimeError):
    """``requested`` bytes could not be allocated with ``free`` bytes left; None if a number is unknown."""

    def __init__(self, device: str, requested: int | None, free: int | None, advice: str) -> None:
        super().__init__(device, requested, free, advice)  # the arguments with which it is unpickled
        self.device = device
        self.requested = requested
        self.free = free
        self.advice = advice

    def __str__(self) -> str:
        known = []
        if self.requested is not None:
            known.append(f"{readable_bytes(self.requested)} were requested")
        if self.free is not None:
            known.append(f"{readable_bytes(self.free)} are free")
        found = f"{' and '.join(known)}; " if known else ""
        return f"{self.device} is out of memory: {found}{self.advice}"


class ArgumentError(ValueError):
    """An invalid argument; the message names it, its value and what was expected."""
