"""All checks of a device, kind by kind."""

from collections.abc import Callable, Iterable

from backends import Backend
from cnn.selftest import gradients, parity
from cnn.selftest.checks import Check, Section, carry_out

SECTIONS: dict[str, Callable[[Backend], Iterable[Check]]] = {
    "gradients": gradients.checks,
    "parity": parity.checks,
}


def run(backend: Backend, begins: Callable[[Check], None] = lambda check: None) -> dict[str, Section]:
    """The results of ``backend`` in each section; ``begins`` is called with each check before it runs.

    Raises DeviceLost, OutOfMemory if the device cannot continue.
    """
    return {name: carry_out(checks, backend, begins) for name, checks in SECTIONS.items()}
