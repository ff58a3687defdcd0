"""Checks by name, and what became of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from backends import Backend
from cnn.comparison.agreement import difference
from cnn.support.errors import ArgumentError, DeviceLost, DisagreementError, OutOfMemory


class NotOurs(Exception):
    """Why a check asks for something that this library does not have."""


@dataclass(frozen=True)
class Check:
    """Something that a device should get right; ``run`` raises where it does not, or NotOurs."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Failure:
    """A check that did not pass, and why."""

    name: str
    reason: str


@dataclass
class Section:
    """How the checks of one kind fared; ``missing`` is why none could be run."""

    passed: int = 0
    skipped: int = 0
    failed: list[Failure] = field(default_factory=list)
    missing: str | None = None


def carry_out(
    checks: Callable[[Backend], Iterable[Check]],
    backend: Backend,
    begins: Callable[[Check], None] = lambda check: None,
) -> Section:
    """Run the checks on ``backend``, all of them, whatever fails; ``begins`` is given each.

    Raises DeviceLost, OutOfMemory: after those no further result would mean anything.
    """
    section = Section()
    try:
        for check in checks(backend):
            begins(check)
            try:
                check.run()
            except NotOurs:
                section.skipped += 1
            except (DeviceLost, OutOfMemory):
                raise
            except Exception as error:  # a broken kernel fails in any way it likes
                section.failed.append(Failure(check.name, _sentence(error)))
            else:
                section.passed += 1
    except ArgumentError as error:  # of the library that the checks come from
        section.missing = str(error)
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
