"""Opening what may be anything, and small files of text read whole."""

import os
import stat
from errno import EINVAL
from pathlib import Path
from typing import IO

MOST_TEXT = 16 << 20  # bytes; 100,000 epochs, or the names of 65,536 classes, take less


def open_regular(path: Path) -> IO[bytes]:
    """``path``, open for reading; OSError where that fails or where it is no regular file."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise OSError(EINVAL, "this is a folder or a device, expected a file", str(path))
    return path.open("rb")


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The UTF-8 text in the file ``path``.

    Raises OSError where it cannot be read or is no regular file, ValueError where it has more than ``most``
    bytes or is no UTF-8.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, expected at most {most:,}")
        return file.read(size).decode("utf-8")
