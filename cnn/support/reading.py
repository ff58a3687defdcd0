"""Opening files that may be anything, and reading small text files."""

import os
import stat
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from errno import EINVAL
from pathlib import Path
from typing import IO, Any

SAVE_AS = "save it as UTF-8"  # what to do with text in another encoding
MOST_DOTS = 200  # in a line of TOML: tomllib takes memory by the square of the parts of a name
MOST_TEXT = 16 << 20  # bytes; 100,000 epochs, or the names of 65,536 classes, take less


def open_regular(path: Path) -> IO[bytes]:
    """Open ``path`` for reading; OSError if that fails or if it is not a regular file."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block
        raise OSError(EINVAL, "this is a folder or a device, expected a file", str(path))
    return path.open("rb")


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text in ``path``: UTF-8, or UTF-16 with a byte order mark. The mark is removed.

    Raises OSError if the file cannot be read or is not a regular file, ValueError if it has more than
    ``most`` bytes or is not such text.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"it has {size:,} bytes, expected at most {most:,}")
        return decoded(file.read(size))


def decoded(data: bytes) -> str:
    """``data`` decoded as text; ValueError for other encodings, with the likely one."""
    start, has_mark = data[:100], data.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    if start.startswith((BOM_UTF32_LE, BOM_UTF32_BE)):
        raise ValueError(f"it is in UTF-32: {SAVE_AS}")
    if not has_mark and abs(start[::2].count(0) - start[1::2].count(0)) > len(start) // 4:
        raise ValueError(f"it is in UTF-16 without a byte order mark: {SAVE_AS}")
    try:
        text = data.decode("utf-16" if has_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        if has_mark:
            raise ValueError("it begins like UTF-16 but is not: it is damaged or incomplete") from None
        wrong = f"byte {error.start:,} is 0x{data[error.start]:02x}"
        raise ValueError(f"{wrong}, as in Latin-1 or another code page: {SAVE_AS}") from None
    if "\0" in text:
        raise ValueError(f"character {text.index(chr(0)):,} is NUL: it is damaged or not text")
    return text


def parse_toml(text: str) -> dict[str, Any]:
    """The values in TOML; ValueError if it is invalid, or has lines that take very long to parse."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_DOTS and not line.lstrip().startswith("#"):
            raise ValueError(f"line {number} has {line.count('.'):,} dots, expected at most {MOST_DOTS}")
    return tomllib.loads(text)
