"""Writing files whole or not at all."""

import glob
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnn.errors import ArgumentError


def write_whole(path: str | Path, data: bytes) -> None:
    """Put ``data`` at ``path``: readers see the old file or the new one, never a part, after a crash too.

    Raises OSError where the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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
    finally:
        os.close(handle)


def remove_unfinished(path: Path) -> None:
    """Remove what writers of ``path`` that were killed have left beside it."""
    for beside in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):
            beside.unlink()


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
