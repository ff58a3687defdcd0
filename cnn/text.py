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


def best_weights(epoch: int | None) -> str:
    """As in "the best, of epoch 2"; an older run's file does not say of which epoch they are."""
    return "the best" if epoch is None else f"the best, of epoch {epoch}"


def figure(value: float) -> str:
    """Three digits or three decimals, as in 0.012, 1.23, 12.3, 12,345; a dash for 0 and what is no number."""
    if not isfinite(value) or value == 0:
        return "-"
    size = abs(value)
    if size < 0.0005:
        return "<0.001"
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def milliseconds(seconds: float) -> str:
    """As in "0.153"; the unit stands elsewhere."""
    return figure(1e3 * seconds)


def duration(seconds: float) -> str:
    """As in "11.6 s", "4 min 5 s", "2 h 3 min"."""
    if not isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"
