"""Checks by name, and their results."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from backends import Backend
from cnn.comparison.agreement import difference
from cnn.support.errors import DeviceLost, DisagreementError, OutOfMemory


@dataclass(frozen=True)
class Check:
    """Something that a device should get right; ``run`` raises an error if it does not."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Failure:
    """A check that did not pass, and why."""

    name: str
    reason: str


@dataclass
class Section:
    """The results of the checks of one kind."""

    passed: int = 0
    failed: list[Failure] = field(default_factory=list)


def carry_out(
    checks: Callable[[Backend], Iterable[Check]],
    backend: Backend,
    begins: Callable[[Check], None] = lambda check: None,
) -> Section:
    """Run all checks on ``backend``, including those after a failure; ``begins`` is called with each.

    Raises DeviceLost, OutOfMemory: after those no further result would mean anything.
    """
    section = Section()
    for check in checks(backend):
        begins(check)
        try:
            check.run()
        except (DeviceLost, OutOfMemory):
            raise
        except Exception as error:  # a broken kernel may fail in any way
            section.failed.append(Failure(check.name, _sentence(error)))
        else:
            section.passed += 1
    return section


def require_near(what: str, expected: Any, found: Any, allowed: float) -> None:
    """Raise DisagreementError where host arrays differ by more than ``allowed`` of the largest number."""
    if expected.shape != found.shape:
        raise DisagreementError(f"{what} is {found.shape}, expected {expected.shape}")
    apart = difference(expected, found)
    if not apart <= allowed:  # NaN is not
        raise DisagreementError(f"{what} is off by {apart:.1e}, expected at most {allowed:.0e}")


def _sentence(error: Exception) -> str:
    """What went wrong, on one line; of an error that nobody meant to raise its type as well."""
    message = " ".join(str(error).split())
    return message if isinstance(error, DisagreementError) else f"{type(error).__name__}: {message}"
