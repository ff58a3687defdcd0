"""Formatting of numbers and names for people."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import isfinite

JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # of letters in Persian, of parts in emoji

# Characters in names that Python calls unprintable: the joiners, two kinds of space and the tags of flags.
ALSO_PRINTABLE = re.compile(f"[{JOINERS}\u00a0\u3000\U000e0020-\U000e007f]")


def is_printable(text: str) -> bool:
    """Whether every character can be shown and none changes the direction of the line."""
    return ALSO_PRINTABLE.sub("", text).isprintable()


def printable(text: str) -> str:
    """The text with characters replaced that cannot be shown or would change the direction of the line."""
    return "".join(letter if is_printable(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def short(text: str, length: int) -> str:
    """The text, truncated to ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def text_width(text: str) -> int:
    """The width of the text on a terminal: 2 columns for a wide letter, 0 for a mark or a joiner."""
    return sum(
        (2 if unicodedata.east_asian_width(letter) in "WF" else 1)
        for letter in text
        if unicodedata.category(letter) not in ("Mn", "Me", "Cf")
    )


def labels(names: Sequence[str], width: int) -> list[str]:
    """The names truncated to ``width`` columns each, still different from one another.

    A long name keeps its beginning, its beginning and its end, or its end: the first of these that is
    unique. If none is, its label is "#" and its position.
    """
    found: list[str | None] = [name if text_width(name) <= width else None for name in names]
    for head in (width - 1, width // 2, 0):
        cut = [_cut(name, head, width - 1 - head) for name in names]
        counts = Counter(cut[i] if label is None else label for i, label in enumerate(found))
        found = [cut[i] if label is None and counts[cut[i]] == 1 else label for i, label in enumerate(found)]
    return [f"#{position}" if label is None else label for position, label in enumerate(found)]


def _cut(name: str, head: int, tail: int) -> str:
    """The first ``head`` and the last ``tail`` columns of the name, with an ellipsis between them."""
    begin = next(name[:i] for i in range(len(name), -1, -1) if text_width(name[:i]) <= head)
    end = next(name[i:] for i in range(len(name) + 1) if text_width(name[i:]) <= tail)
    while end and not text_width(end[0]):  # a combining mark without its letter
        end = end[1:]
    return f"{begin.rstrip(JOINERS)}…{end}"


def percent(share: float) -> str:
    """A percentage such as "98.44%"; values that would be rounded to 0 are shown as "<0.01%"."""
    return "<0.01%" if 0 < share < 0.00005 else f"{share:.2%}"


def best_weights(epoch: int | None) -> str:
    """A phrase such as "the best, of epoch 2"; files of older runs do not contain the epoch."""
    return "the best" if epoch is None else f"the best, of epoch {epoch}"


def figure(value: float) -> str:
    """Three digits or three decimals, as in 0.012, 1.23, 12.3, 12,345; a dash for 0, NaN and infinity."""
    if not isfinite(value) or value == 0:
        return "-"
    size = abs(value)
    if size < 0.0005:
        return "<0.001"
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def milliseconds(seconds: float) -> str:
    """Milliseconds such as "0.153", without the unit."""
    return figure(1e3 * seconds)


def duration(seconds: float) -> str:
    """A duration such as "11.6 s", "4 min 5 s" or "2 h 3 min"."""
    if not isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def some_of(names: Iterable[str]) -> str:
    """The names in quotes; a long list is shortened."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:20]) + (f" and {len(quoted) - 20} more" if len(quoted) > 20 else "")


def dimensions(shape: Iterable[int]) -> str:
    """A shape as text, such as "3x32x32"."""
    return "x".join(map(str, shape))


def literal(text: str) -> int | float | bool | str:
    """The number that ``text`` stands for, or True or False; other text is returned unchanged."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
