"""Runs parts in processes of their own, each for a limited time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from cnn.support.text import duration
from measurements.plan import Part
from measurements.record import DONE, FAILED, KILLED, NO_DEVICE, NOT_STARTED, SKIPPED, Record

PROGRAM = Path(__file__).with_name("part.py")
LEAST = 2.0  # seconds: with less left a part is not started
PATIENCE = 5.0  # seconds that a killed process may take to end
ENDED = (DONE, FAILED, SKIPPED, NO_DEVICE)  # outcomes that the process of a part writes itself


def command(part: Part, device: str, folder: Path) -> list[str]:
    """The command line of the part's process."""
    return [sys.executable, str(PROGRAM), part.name, device, str(folder)]


def run(part: Part, folder: Path, start: Sequence[str], limit: float) -> Record:
    """Run the part with the command ``start`` for at most ``limit`` seconds; -> how it ended.

    Its output goes to the part's log. If this process is interrupted, the part is killed first.
    """
    record = Record(folder, part.name)
    if limit < LEAST:
        record.end(NOT_STARTED, "no time was left")
        return record
    began = time.monotonic()
    try:
        with record.log.open("wb") as log:
            process = subprocess.Popen(
                start, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            try:
                reason = f"its process ended with code {process.wait(limit)}"
            except subprocess.TimeoutExpired:
                reason = f"it had not ended after {duration(limit)}"
            finally:
                _kill(process)
    except KeyboardInterrupt:
        _end(part, folder, began, "it was interrupted")
        raise
    return _end(part, folder, began, reason)


def _end(part: Part, folder: Path, began: float, reason: str) -> Record:
    """The part's record with its time, and with ``reason`` if the part did not write its end itself."""
    record = Record.read(folder, part.name)
    record.seconds = time.monotonic() - began
    if record.outcome in ENDED:
        record.write()
    else:
        crashed = reason.startswith("its process")
        record.end(FAILED if crashed else KILLED, reason)
    return record


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the process and the processes that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    with suppress(subprocess.TimeoutExpired):  # it waits inside of the driver, which nobody can end
        process.wait(PATIENCE)


def run_all(
    parts: Sequence[Part],
    device: str,
    folder: Path,
    seconds: float,
    on_end: Callable[[Record], None],
    on_start: Callable[[Part, float], None] = lambda part, limit: None,
) -> None:
    """Run the parts in their order; all of them together take at most ``seconds``.

    What an earlier run has left of these parts in the folder is removed first. ``on_start`` is called with
    each part and its limit, ``on_end`` with its record.
    """
    deadline = time.monotonic() + seconds
    for part in parts:
        Record(folder, part.name).path.unlink(missing_ok=True)
    for part in parts:
        limit = min(part.share * seconds, deadline - time.monotonic())
        on_start(part, limit)
        on_end(run(part, folder, command(part, device, folder), limit))
