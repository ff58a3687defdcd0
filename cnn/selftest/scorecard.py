"""All checks of a device, kind by kind."""

from collections.abc import Callable, Iterable

from backends import Backend
from cnn.selftest import conformance, gradients, parity
from cnn.selftest.checks import Check, Section, carry_out

SECTIONS: dict[str, Callable[[Backend], Iterable[Check]]] = {
    "conformance": conformance.checks,
    "gradients": gradients.checks,
    "parity": parity.checks,
}


def run(backend: Backend, begins: Callable[[Check], None] = lambda check: None) -> dict[str, Section]:
    """How ``backend`` fares in each section; ``begins`` is given each check before it is run.

    Raises DeviceLost, OutOfMemory if it cannot go on.
    """
    return {name: carry_out(checks, backend, begins) for name, checks in SECTIONS.items()}
