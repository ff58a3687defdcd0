"""Checks by name, and their results."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from backends import Backend
from cnn.inspection.differences import problem_of
from cnn.support.errors import DeviceLost, OutOfMemory


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
            section.failed.append(Failure(check.name, problem_of(error)))
        else:
            section.passed += 1
    return section
