"""The checks of ``cnn selftest``, which need no command line."""

from dataclasses import asdict
from functools import partial

import backends
from cnn.comparison.setups import kernel_sets
from cnn.selftest import scorecard
from cnn.selftest.checks import Check, carry_out
from measurements.record import Failed, Record


def measure(device: str, record: Record) -> None:
    """Note the results of each kernel set and section as it ends."""
    results: dict[str, dict[str, object]] = {}
    absent: list[str] = []
    passed = failed = 0
    for kernels in kernel_sets(device, note=absent.append):
        backend = backends.get(device, kernels)
        left_out = scorecard.left_out(backend)
        absent += [f"{kernels}, {name}: {reason}" for name, reason in left_out.items()]
        for name, checks in scorecard.SECTIONS.items():
            if name in left_out:
                continue
            section = carry_out(checks, backend, partial(begin, record, kernels))
            results.setdefault(kernels, {})[name] = asdict(section)
            passed, failed = passed + section.passed, failed + len(section.failed)
            record.note(results=results, absent=absent)
    if failed:
        raise Failed(f"{failed} of {passed + failed} checks failed")


def begin(record: Record, kernels: str, check: Check) -> None:
    """Note what is being checked, in case it does not end."""
    record.note(running=f"{kernels}: {check.name}")
