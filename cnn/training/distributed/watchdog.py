"""Ends a process that waits in vain for the others."""

import os
import sys
import threading
import time
from contextlib import suppress
from types import TracebackType

LEAST_FOR_FIRST_STEP = 600.0  # seconds: other processes may have to compile their kernels first
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
BETWEEN_LOOKS = 0.1  # seconds


class Watchdog:
    """``with watchdog:`` around each wait for other processes; after ``seconds`` it ends the process.

    Nothing else could: the wait is inside a library that listens to no signal. ``name`` is that of the
    process, and ``advice`` says how to continue.
    """

    def __init__(self, name: str, rank: int, seconds: float) -> None:
        self.advice = "start again from the last checkpoint"
        self._name, self._rank = name, rank
        self._seconds = seconds
        self.be_patient()
        self._wait: object | None = None  # another object for each wait
        self._thread: threading.Thread | None = None
        self.waited = 0.0
        """The seconds of all waits so far."""

    def be_patient(self) -> None:
        """Give other processes the time to compile their kernels, which they may have to do now."""
        self._limit = max(self._seconds, LEAST_FOR_FIRST_STEP)

    def be_strict(self) -> None:
        """From now on, waits are as short as ``seconds`` says."""
        self._limit = self._seconds

    def __enter__(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)
            self._thread.start()
        self._since = time.monotonic()
        self._wait = object()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait = None
        self.waited += time.monotonic() - self._since

    def _look(self) -> None:
        seen, looks = None, 0
        while True:
            time.sleep(BETWEEN_LOOKS)
            wait = self._wait
            looks = looks + 1 if wait is seen else 0  # not the clock, which runs on if all are suspended
            seen = wait
            patience = self._limit + 0.4 * min(self._rank, 3)  # the first that speaks ends the others
            if wait is not None and looks * BETWEEN_LOOKS > patience:
                self._end()

    def _end(self) -> None:
        with suppress(Exception):
            text = (
                f"error: {self._name} has waited {self._limit:g} s for the others: one of them hangs or "
                f"cannot be reached; {self.advice}\n"
            )
            sys.stderr.flush()
            os.write(2, text.encode(errors="replace"))
        os._exit(EXIT_CODE)
