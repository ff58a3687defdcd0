"""Differences between operating systems: locks, renaming, flushing folders, signals."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:  # all others
    msvcrt = None  # type: ignore[assignment]

LOCK_FILE = ".lock"  # for systems that cannot lock a folder itself
WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds, until other programs close a file

HANG_UP = getattr(signal, "SIGHUP", None)  # sent when a terminal closes; not on Windows
_STOPPING = signal.SIGINT, signal.SIGTERM, HANG_UP, getattr(signal, "SIGBREAK", None)  # the last on Windows
STOP_SIGNALS = [number for number in _STOPPING if number is not None]


def replace(source: str | Path, target: str | Path) -> None:
    """Rename a file, replacing ``target``; on Windows this fails while another program has it open."""
    _retried(lambda: os.replace(source, target))


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that does not exist."""
    _retried(lambda: source.rename(target))


def _retried(action: Callable[[], Any]) -> None:
    """Call ``action``; on Windows retry for a while, since indexers and virus scanners open new files."""
    for wait in WAITS if _is_windows() else ():
        try:
            action()
        except PermissionError:
            time.sleep(wait)
        else:
            return
    action()


def open_folder(path: Path) -> int | None:
    """A handle of the folder for flushing it; None if the system has no such handles."""
    return None if _is_windows() else os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside the block; BlockingIOError if another process holds it.

    The system releases the lock however this process ends. File systems without locks are not locked.
    """
    with ExitStack() as stack:
        try:
            if fcntl is not None:
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif msvcrt is not None:
                _lock_file(folder / LOCK_FILE, stack)
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process holds the folder's lock."""
    try:
        with locked(folder):
            return False
    except BlockingIOError:
        return True


def _lock_file(path: Path, stack: ExitStack) -> None:
    """Lock a separate file, which is removed when ``stack`` is closed."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    stack.callback(_remove, path)
    stack.callback(os.close, handle)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except PermissionError as error:
        raise BlockingIOError(error.errno, error.strerror) from None


def _remove(path: Path) -> None:
    with suppress(OSError):  # another process has it open
        path.unlink()


def _is_windows() -> bool:
    return os.name == "nt"
