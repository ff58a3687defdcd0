"""Downloads a file from a server that may be slow, silent or wrong, with limits on size and time."""

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread

from backends.text import first_line
from cnn.support.text import printable, short

PATIENCE = 30.0  # seconds in which LEAST bytes or all remaining bytes must arrive
LEAST = 1 << 16

_CHUNK = 1 << 16


class TransferError(Exception):
    """A transfer failed; the message is, for example, "HTTP Error 404: Not Found"."""


def received(url: str, size: int) -> Iterator[bytes]:
    """Yields the ``size`` bytes at ``url``, piece by piece; redirects are followed.

    Raises TransferError if the server cannot be reached, refuses, is too slow, or sends fewer or more
    bytes; at most one byte beyond ``size`` is read.
    """
    pieces: SimpleQueue[bytes | TransferError] = SimpleQueue()
    given_up = Event()
    # Socket timeouts cover neither name resolution nor an answer of one byte per second, so another thread
    # waits for the server, and this thread waits for the other.
    Thread(target=_read, args=(url, size + 1, pieces, given_up), daemon=True).start()
    try:
        yield from _checked(pieces, size)
    finally:
        given_up.set()


def _checked(pieces: "SimpleQueue[bytes | TransferError]", size: int) -> Iterator[bytes]:
    """Yields the pieces, and checks their speed and total size."""
    beginning, count, recent = b"", 0, 0
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            piece = pieces.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise TransferError(_too_slow()) from None
        if isinstance(piece, TransferError):
            raise piece
        beginning = beginning or piece
        count += len(piece)
        if count > size or (count < size and not piece):
            if beginning.lstrip().startswith(b"<"):  # for example the login page of a network
                raise TransferError("sends a web page instead")
            wrong = "sends more than" if count > size else f"ends after {count:,} of"
            raise TransferError(f"{wrong} the {size:,} bytes expected")
        if not piece:
            return
        yield piece
        recent += len(piece)
        if recent >= LEAST:
            recent, deadline = 0, time.monotonic() + PATIENCE


def _read(url: str, most: int, pieces: "SimpleQueue[bytes | TransferError]", given_up: Event) -> None:
    """Put the bytes of ``url`` into ``pieces``, up to ``most``; then b"" or the error."""
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, headers={"User-Agent": "xpcnn"}), timeout=PATIENCE) as response:
            while most and not given_up.is_set() and (piece := response.read1(min(_CHUNK, most))):
                most -= len(piece)
                pieces.put(piece)
        pieces.put(b"")
    except Exception as error:  # connections fail in many ways
        pieces.put(TransferError(_reason(error)))


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None)  # urllib wraps the system's error
    if isinstance(cause, Exception):
        return _reason(cause)
    if isinstance(error, TimeoutError):
        return _too_slow()
    said = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
    return short(printable(said), 200)


def _too_slow() -> str:
    return f"sends less than {LEAST:,} bytes in {PATIENCE:g} s"
