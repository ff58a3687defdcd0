"""What can happen to bytes, whatever they mean."""

from collections.abc import Callable
from random import Random

BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
WIDTHS = (1, 2, 4, 8)
HEADER = 64  # most formats say what they hold in so many bytes
CHUNK = 48

Accident = Callable[[bytearray, bytes, Random], None]


def damage(data: bytes, other: bytes, random: Random) -> bytes:
    """``data`` after one to four accidents; ``other`` is a second valid file of its kind."""
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        random.choice(ACCIDENTS)(damaged, other, random)
    return bytes(damaged)


def extreme(random: Random, size: int) -> int:
    """An integer of 64 bits that a length, count or offset should not be; ``size`` is the file's."""
    power = 1 << random.choice((7, 8, 15, 16, 31, 32, 63, 64))
    return random.choice((0, 1, power - 1, power, power + 1, power // 2 - 1, -1, size - 1, size, size + 1))


def flip_bit(data: bytearray, other: bytes, random: Random) -> None:
    if data:
        data[place(data, random)] ^= 1 << random.randrange(8)


def set_byte(data: bytearray, other: bytes, random: Random) -> None:
    if data:
        data[place(data, random)] = random.choice((*BYTES, random.randrange(256)))


def set_integer(data: bytearray, other: bytes, random: Random) -> None:
    width = random.choice(WIDTHS)
    number = extreme(random, len(data)) % (1 << 8 * width)
    start = place(data, random)
    data[start : start + width] = number.to_bytes(width, random.choice(("little", "big")))


def cut_short(data: bytearray, other: bytes, random: Random) -> None:
    del data[random.randint(0, len(data)) :]


def go_on(data: bytearray, other: bytes, random: Random) -> None:
    more = random.choice((1, 8, 100, 5000))
    data += random.choice((bytes(more), random.randbytes(more), bytes(data[:more])))


def lose_chunk(data: bytearray, other: bytes, random: Random) -> None:
    del data[chunk(data, random)]


def repeat_chunk(data: bytearray, other: bytes, random: Random) -> None:
    where = chunk(data, random)
    data[where.start : where.start] = data[where] * random.choice((1, 1, 20))


def swap_chunks(data: bytearray, other: bytes, random: Random) -> None:
    first, second = chunk(data, random), chunk(data, random)
    data[first], data[second] = data[second], data[first]


def splice(data: bytearray, other: bytes, random: Random) -> None:
    data[place(data, random) :] = other[random.randint(0, len(other)) :]


ACCIDENTS: tuple[Accident, ...] = (
    flip_bit,
    set_byte,
    set_integer,
    set_integer,
    cut_short,
    go_on,
    lose_chunk,
    repeat_chunk,
    swap_chunks,
    splice,
)


def place(data: bytearray, random: Random) -> int:
    """A position: half of the time in the header."""
    end = min(len(data), HEADER) if random.random() < 0.5 else len(data)
    return random.randrange(end) if end else 0


def chunk(data: bytearray, random: Random) -> slice:
    start = place(data, random)
    return slice(start, start + random.randint(1, CHUNK))
