"""What a backend refuses, each in one sentence that says what to do."""


class DeviceUnavailable(RuntimeError):
    """The device that was asked for cannot be used; the message says what failed: and what mends it."""

    @property
    def cause(self) -> str:
        """The message without the mend, which follows its last colon."""
        return str(self).rpartition(": ")[0] or str(self)


class ArgumentError(ValueError):
    """An argument outside what is possible; the message names it, its value and what was expected."""
