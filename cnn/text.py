"""Figures and names as people read them."""

from math import isfinite


def printable(text: str) -> str:
    """The text with a replacement character for what cannot be shown, or would turn the line around."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def short(text: str, length: int) -> str:
    """The text, cut where it is longer than ``length``."""
    return text if len(text) <= length else text[: length - 1] + "…"


def percent(share: float) -> str:
    """As in "98.44%"; what would be rounded to 0 is said to be less."""
    return "<0.01%" if 0 < share < 0.00005 else f"{share:.2%}"


def milliseconds(seconds: float) -> str:
    """As in "0.153"; the unit stands elsewhere."""
    return f"{1e3 * seconds:.3f}"


def duration(seconds: float) -> str:
    """As in "11.6 s", "4 min 5 s", "2 h 3 min"."""
    if not isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
