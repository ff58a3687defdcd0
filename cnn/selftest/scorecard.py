"""All checks of a device, kind by kind."""

from collections.abc import Callable, Iterable
from functools import partial

from backends import Backend
from backends.dtypes import HALVES
from cnn.selftest import gradients, halves, parity
from cnn.selftest.checks import Check, Section, carry_out
from cnn.support.errors import ArgumentError

SECTIONS: dict[str, Callable[[Backend], Iterable[Check]]] = {
    "gradients": gradients.checks,
    "parity": parity.checks,
    **{dtype: partial(halves.checks, dtype) for dtype in HALVES},
}


def left_out(backend: Backend) -> dict[str, str]:
    """Why sections are left out on ``backend``, by name: it does not compute in 16 bits."""
    reasons = {}
    for dtype in HALVES:
        if not backend.has_halves:
            reasons[dtype] = f"{backend.name} does not compute in 16 bits"
            continue
        try:
            backend.require_support(dtype)
        except ArgumentError as error:  # a library is missing
            reasons[dtype] = str(error)
    return reasons


def run(backend: Backend, begins: Callable[[Check], None] = lambda check: None) -> dict[str, Section]:
    """The results of ``backend`` in each section; ``begins`` is called with each check before it runs.

    Sections that are :func:`left_out` are not in it. Raises DeviceLost, OutOfMemory if the device cannot
    continue.
    """
    absent = left_out(backend)
    return {
        name: carry_out(checks, backend, begins) for name, checks in SECTIONS.items() if name not in absent
    }
