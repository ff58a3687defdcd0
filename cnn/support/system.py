"""What operating systems do differently: locks, renaming, folders on the disk, signals."""

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

LOCK_FILE = ".lock"  # in a folder, on a system that cannot lock the folder itself
WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds, for a reader of a file to be done with it

HANG_UP = getattr(signal, "SIGHUP", None)  # a terminal that closes; Windows does not have it
_STOPPING = signal.SIGINT, signal.SIGTERM, HANG_UP, getattr(signal, "SIGBREAK", None)  # the last on Windows
STOP_SIGNALS = [number for number in _STOPPING if number is not None]


def replace(source: str | Path, target: str | Path) -> None:
    """Rename a file over the one at ``target``; Windows cannot while another program has that open."""
    _retried(lambda: os.replace(source, target))


def rename(source: Path, target: Path) -> None:
    """Rename a file or a folder to a name that nothing has."""
    _retried(lambda: source.rename(target))


def _retried(action: Callable[[], Any]) -> None:
    """Call ``action``; on Windows again for a while, since indexers and virus scanners open what is new."""
    for wait in WAITS if _is_windows() else ():
        try:
            action()
        except PermissionError:
            time.sleep(wait)
        else:
            return
    action()


def open_folder(path: Path) -> int | None:
    """A handle of the folder itself, to flush it by; None if the system has none for folders."""
    return None if _is_windows() else os.open(path, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside the block; BlockingIOError if another process holds it.

    The system gives it back however this process ends. On a file system without locks nothing is held.
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


def _lock_file(path: Path, stack: ExitStack) -> None:
    """Lock a file of its own, which goes when ``stack`` is closed."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    stack.callback(_remove, path)
    stack.callback(os.close, handle)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except PermissionError as error:
        raise BlockingIOError(error.errno, error.strerror) from None


def _remove(path: Path) -> None:
    with suppress(OSError):  # of another process that has it open
        path.unlink()


def _is_windows() -> bool:
    return os.name == "nt"
