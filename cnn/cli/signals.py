"""Ctrl-C, SIGTERM and a terminal that closes (SIGHUP), during a training run and before it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from cnn.support.system import HANG_UP, STOP_SIGNALS
from cnn.training.callbacks import Callback
from cnn.training.run import Run

SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar hides


class Terminated(BaseException):
    """SIGTERM was received."""


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise Terminated, so that half-written files are removed; a second one ends the process.

    Without this, the system ends the process at the first one.
    """
    if (
        threading.current_thread() is not threading.main_thread()  # Python allows no other thread to
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def receive(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class StopOnSignal(Callback):
    """Stops the training run after the current batch at the first signal, ends the process at the second.

    A terminal that closes may send SIGHUP more than once, so SIGHUP does not count as the first of two
    signals, nor as the second.

    It must be the first of the callbacks, so that the others see that the run stops. ``received`` is the
    number of the signal.
    """

    everywhere = True

    def __init__(self, speaks: bool = True) -> None:
        self.received: int | None = None
        self._speaks = speaks  # one of several processes does

    def on_start(self, run: Run) -> None:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python allows no other thread to
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # ignored, as under nohup
                    self._before[number] = signal.signal(number, self._receive)

    def on_step(self, run: Run) -> None:
        self._pass_on(run)

    def on_epoch(self, run: Run, record: dict[str, Any]) -> None:
        self._pass_on(run)

    def on_end(self, run: Run) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _pass_on(self, run: Run) -> None:
        run.stop = run.stop or self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == HANG_UP and self.received is not None:
            return
        if self.received not in (None, HANG_UP):
            if sys.stderr.isatty():
                _write(SHOW_CURSOR)
            os._exit(128 + number)
        self.received = number
        if not self._speaks:
            return
        own_line = b"\n" * sys.stderr.isatty()  # the current one begins with ^C
        _write(own_line + b"stopping after the current batch; a second signal stops at once\n")


def _write(text: bytes) -> None:
    """To standard error past Python's buffers, which a signal may have come in the middle of."""
    with suppress(OSError):  # whoever read it may be gone, by the same signal
        os.write(2, text)
