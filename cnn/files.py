"""Writing files and folders whole or not at all."""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EBADF, EINVAL, ENOTSUP
from pathlib import Path
from typing import Any

from cnn.errors import ArgumentError

UNFINISHED = ".unfinished"  # how the name ends of what is being written


def write_whole(path: str | Path, data: bytes) -> None:
    """Put ``data`` at ``path``: readers see the old file or the new one, never a part, after a crash too.

    Raises OSError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        handle, beside = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o666 & ~umask())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise
        flush_folder(path.parent)
    except OSError as error:  # of the temporary file, which nobody has heard of
        raise OSError(error.errno, error.strerror, str(path)) from error


def flush_folder(path: Path) -> None:
    """Have the disk keep which files the folder holds, where the system lets a folder be opened."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (EINVAL, EBADF, ENOTSUP):  # of a file system that cannot flush folders
            raise
    finally:
        os.close(handle)


@contextmanager
def making_whole(path: Path) -> Iterator[Path]:
    """A folder to be filled, which is at ``path`` after the block, or not at all; its parents are made too.

    What earlier ones that were killed have left is removed. Raises OSError where that fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        shutil.rmtree(left, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(UNFINISHED, f".{path.name}.", path.parent))
    try:
        yield beside
        beside.chmod(0o777 & ~umask())
        beside.rename(path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove what writers of files in ``folder`` and below that were killed have left there."""
    for left in folder.rglob(f".*{UNFINISHED}"):
        with suppress(OSError):
            left.unlink()


def told(error: Exception) -> str:
    """An error as a sentence tells it: of the system's, the file and the reason without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def require_place(path: Path) -> None:
    """Raise ArgumentError unless a file could be put at ``path``, before the work for it is done."""
    if path.is_dir():
        raise ArgumentError(f"{path} is a folder: expected the name of a file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        what = "cannot be written" if path.parent.exists() else "does not exist"
        raise ArgumentError(f"{path} cannot be made, the folder {path.parent} {what}: name another")


def write_json(path: str | Path, value: Any) -> None:
    """Put ``value`` at ``path`` as JSON for people and programs."""
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode())


def leaves(value: Any) -> Iterator[Any]:
    """All names, texts and numbers in JSON values."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def umask() -> int:
    """The rights that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
