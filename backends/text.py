"""Formatting of numbers and text, and suggestions for misspelled names."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any


def readable_bytes(count: float) -> str:
    """1536 -> "1.5 KB"."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [""])[0]


def quoted(text: str) -> str:
    """``text`` quoted as one word of a command line; Windows' shell does not support single quotes."""
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)


def nearest(given: str, names: Iterable[str]) -> str | None:
    """The name of which ``given`` is a misspelling, or None; case and hyphens are ignored."""
    plain, letters = {_plain(name): name for name in names}, sorted(_plain(given))
    swapped = [name for name in plain if sorted(name) == letters]  # as in "sdg"
    found = swapped or get_close_matches(_plain(given), plain, n=1, cutoff=0.7)
    return plain[found[0]] if found else None


def did_you_mean(
    given: Any, names: Iterable[str], elsewhere: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The end of an error message, as in "; did you mean 'adam'?"; empty if no name is similar.

    ``elsewhere`` maps names that other programs use to the names here.
    """
    if not isinstance(given, str):
        return ""
    found = elsewhere.get(given.lower()) or nearest(given, names)
    return f"; did you mean {found!r}?" if found else ""


def _plain(text: str) -> str:
    return re.sub(r"[-_ ]", "", text.lower())
