"""Output files of commands. An existing file is overwritten only if it is of the same kind."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cnn.support.errors import ArgumentError
from cnn.support.files import require_place

ENOUGH = 1 << 12  # bytes read to recognize the kind of a file


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name with an article, a test of its first bytes, and its suffix if unique."""

    name: str
    begins: Callable[[bytes], bool]
    suffix: str | None = None


PNG = Kind("a PNG picture", lambda start: start.startswith(b"\x89PNG\r\n"))
SVG = Kind("an SVG picture", lambda start: b"<svg" in start)
PAGE = Kind("an HTML page", lambda start: start.lstrip()[:9].lower() == b"<!doctype")
ONNX = Kind("an ONNX file", lambda start: start.startswith(b"\x08"), ".onnx")  # the tag of ir_version
C_CODE = Kind("C code that cnn export wrote", lambda start: b"written by xpcnn" in start)
COMPARISON = Kind("a saved comparison", lambda start: b'"format": "xpcnn comparison"' in start)
JSON = Kind("a JSON file", lambda start: start.lstrip()[:1] in (b"{", b"["))
MARKDOWN = Kind("a Markdown page", lambda start: start.startswith(b"# "))


def require_suffix(option: str, path: Path, suffix: str) -> None:
    """Raise ArgumentError unless the file that an option names ends in the suffix of what is written."""
    if path.suffix != suffix:
        raise ArgumentError(f"--{option} is {str(path)!r}, expected a name that ends in {suffix}")


def require_output(path: Path, kind: Kind) -> str:
    """The message for after ``path`` is written, such as "overwrote speeds.png".

    Raises ArgumentError if ``path`` cannot be written, or if a file of another kind exists there.
    """
    require_place(path)
    if not os.path.lexists(path):
        return f"wrote {path}"
    if not path.is_file():
        raise ArgumentError(f"{path} exists and is not a regular file: name another file")
    try:
        with path.open("rb") as file:
            start = file.read(ENOUGH)
    except OSError as error:
        raise ArgumentError(
            f"{path} exists and cannot be read ({error.strerror}): name another file"
        ) from None
    if start and path.suffix != kind.suffix and not kind.begins(start):
        raise ArgumentError(f"{path} exists and is not {kind.name}: name another file, or remove this one")
    return f"{'overwrote' if start else 'wrote'} {path}"
