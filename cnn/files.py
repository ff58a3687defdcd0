"""Writing files whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn.errors import ArgumentError


def write_whole(path: str | Path, data: bytes) -> None:
    """Put ``data`` at ``path``: readers see the old file or the new one, never a part.

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
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as error:  # of the temporary file, which nobody has heard of
        raise OSError(error.errno, error.strerror, str(path)) from error


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
