"""The GPU tests of a few files, in a process that is replaced if a test ends it or loses the device."""

import os
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import backends
from backends.text import first_line
from cnn.support.libraries import require
from cnn.support.text import short
from measurements.record import Failed, Record, Skipped

TESTS = Path(__file__).resolve().parents[2] / "tests"
HANGS = 30  # seconds after which the log shows where a test is
MOST = 200  # characters of a failure's reason
PASSED, FAILED, SKIPPED = OUTCOMES = ("passed", "failed", "skipped")


def measure(
    device: str, record: Record, paths: Sequence[str], without: Sequence[str], folder: Path = TESTS
) -> None:
    """Run the tests marked ``gpu`` below these paths of ``folder``, except those ``without``; count them."""
    if device == "cpu":
        raise Skipped("these tests need a GPU: `make test` runs the others")
    require("pytest", "to run the tests")
    arguments = [str(folder / path) for path in paths]
    arguments += [f"--ignore={folder / path}" for path in without]
    record.note(**dict.fromkeys(OUTCOMES, 0), failures={}, not_collected={}, running=None)
    while run_remaining(record, arguments):
        pass
    if failed := record.found[FAILED]:
        raise Failed(f"{failed} of {number_of(record)} tests failed")
    if not number_of(record):
        raise Failed("no test was run: see the log")


def run_remaining(record: Record, arguments: Sequence[str]) -> bool:
    """Run the tests that were not run yet, in a new process; -> whether some may be left."""
    before = number_of(record)
    process = get_context("spawn").Process(
        target=run_tests, args=(record.path.parent, record.part, arguments)
    )
    process.start()
    process.join()
    record.found = Record.read(record.path.parent, record.part).found
    if culprit := record.found["running"]:
        reason = f"the test ended the process with code {process.exitcode}"
        note_failure(record, culprit, reason)
        return True
    return bool(record.found.pop("lost", None)) and number_of(record) > before


def number_of(record: Record) -> int:
    """How many tests were run."""
    return sum(record.found[outcome] for outcome in OUTCOMES)


def note_failure(record: Record, test: str, reason: str) -> None:
    """Count a failure, and keep its reason."""
    record.found["failures"][test] = short(reason, MOST)
    record.note(failed=record.found[FAILED] + 1, running=None)


def run_tests(folder: Path, part: str, arguments: Sequence[str]) -> None:
    """Run pytest in this process, and add the outcomes to the part's record."""
    import pytest

    record = Record.read(folder, part)
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    options += ["-o", f"faulthandler_timeout={HANGS}"]
    pytest.main([*options, *arguments], plugins=[Counted(record)])
    os._exit(0)  # on a lost device, destructors would fail


def is_lost() -> bool:
    """Whether the GPU cannot be used by this process any more."""
    try:
        backends.get("cuda").synchronize()
    except Exception:
        return True
    return False


class Counted:
    """A plugin of pytest that notes each outcome at once, and ends the run if the device is lost."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._reports: list[Any] = []
        self._session: Any = None

    def pytest_sessionstart(self, session: Any) -> None:
        """Keep the session, to stop it."""
        self._session = session

    def pytest_collection_finish(self, session: Any) -> None:
        """Leave out the tests that an earlier process ran; their order is always the same."""
        del session.items[: number_of(self._record)]

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that cannot be read, usually because a library is missing."""
        if report.failed:
            text = getattr(report.longrepr, "longrepr", None) or str(report.longrepr)
            reason = text.strip().splitlines()[-1].removeprefix("E ").strip()
            self._record.found["not_collected"][report.nodeid] = short(reason, MOST)
            self._record.write()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note which test is running, in case it does not end."""
        self._reports = []
        self._record.note(running=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the report of the setup, the call or the teardown."""
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Count the test."""
        if wrong := next((report for report in self._reports if report.failed), None):
            note_failure(self._record, nodeid, reason_of(wrong))
            if is_lost():
                self._record.note(lost=nodeid)
                self._session.shouldstop = "the device is lost"
            return
        outcome = SKIPPED if any(report.skipped for report in self._reports) else PASSED
        self._record.note(**{outcome: self._record.found[outcome] + 1}, running=None)


def reason_of(report: Any) -> str:
    """The first line of the error that a test failed with."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return first_line(RuntimeError(crash.message if crash else str(report.longrepr)))
