"""Figures as people read them."""


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
