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


def run(backend: Backend) -> dict[str, Section]:
    """How ``backend`` fares in each section; raises DeviceLost, OutOfMemory where it cannot go on."""
    return {name: carry_out(checks, backend) for name, checks in SECTIONS.items()}
