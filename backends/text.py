"""Figures as people read them, and names that they may have meant."""

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
    """What an error says, without what follows on further lines."""
    return (str(error).strip().splitlines() or [""])[0]


def quoted(text: str) -> str:
    """``text`` as one word of a command line; Windows' own shell knows no single quotes."""
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)


def nearest(given: str, names: Iterable[str]) -> str | None:
    """The name that ``given`` is a misspelling of, if there is one; case and hyphens do not count."""
    plain, letters = {_plain(name): name for name in names}, sorted(_plain(given))
    swapped = [name for name in plain if sorted(name) == letters]  # as in "sdg"
    found = swapped or get_close_matches(_plain(given), plain, n=1, cutoff=0.7)
    return plain[found[0]] if found else None


def did_you_mean(
    given: Any, names: Iterable[str], elsewhere: Mapping[str, str] = MappingProxyType({})
) -> str:
    """As in "; did you mean 'adam'?", for the end of an error; empty if nothing is like ``given``.

    ``elsewhere`` has what other programs call some of the names.
    """
    if not isinstance(given, str):
        return ""
    found = elsewhere.get(given.lower()) or nearest(given, names)
    return f"; did you mean {found!r}?" if found else ""


def _plain(text: str) -> str:
    return re.sub(r"[-_ ]", "", text.lower())
