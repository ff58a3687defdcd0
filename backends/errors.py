"""What a backend refuses, each in one sentence that says what to do."""


class DeviceUnavailable(RuntimeError):
    """The device that was asked for cannot be used; the message says what failed and what mends it."""


class ArgumentError(ValueError):
    """An argument outside what is possible; the message names it, its value and what was expected."""
