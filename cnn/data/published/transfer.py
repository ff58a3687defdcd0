"""A file from a server that may be slow, silent or wrong: never more than its size, never waited for long."""

import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread

from backends.text import first_line
from cnn.support.text import printable, short

PATIENCE = 30.0  # seconds within which LEAST bytes have to come, or all that are left
LEAST = 1 << 16

_CHUNK = 1 << 16


class TransferError(Exception):
    """What a server did instead of sending the file, as in "HTTP Error 404: Not Found"."""


def received(url: str, size: int) -> Iterator[bytes]:
    """The ``size`` bytes at ``url``, piece by piece; redirects are followed.

    Raises TransferError where the server cannot be reached, refuses, is too slow, or sends fewer
    bytes or more; of more than ``size`` nothing is read but the byte that shows it.
    """
    pieces: SimpleQueue[bytes | TransferError] = SimpleQueue()
    given_up = Event()
    # No timeout of a socket covers the look-up of a name, or an answer that comes a byte a second;
    # so one thread waits for the server, and this one for that.
    Thread(target=_read, args=(url, size + 1, pieces, given_up), daemon=True).start()
    try:
        yield from _checked(pieces, size)
    finally:
        given_up.set()


def _checked(pieces: "SimpleQueue[bytes | TransferError]", size: int) -> Iterator[bytes]:
    """The pieces, as long as they come fast enough and are of a file of that size."""
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
            if beginning.lstrip().startswith(b"<"):  # of a hotel's network, for example
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
    """Put what comes from ``url`` into ``pieces``, up to ``most`` bytes, then b"" or what went wrong."""
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(url, headers={"User-Agent": "xpcnn"}), timeout=PATIENCE) as response:
            while most and not given_up.is_set() and (piece := response.read1(min(_CHUNK, most))):
                most -= len(piece)
                pieces.put(piece)
        pieces.put(b"")
    except Exception as error:  # whatever a connection fails of
        pieces.put(TransferError(_reason(error)))


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None)  # urllib wraps what the system says
    if isinstance(cause, Exception):
        return _reason(cause)
    if isinstance(error, TimeoutError):
        return _too_slow()
    said = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
    return short(printable(said), 200)


def _too_slow() -> str:
    return f"sends less than {LEAST:,} bytes in {PATIENCE:g} s"
