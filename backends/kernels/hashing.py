"""Random bits that follow from counters: the same on every device, in unsigned integers of 32 bits."""

from typing import Any

from backends.memory import Array

ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1))
"""Shifts and factors of "lowbias32" (Wellons, "Prospecting for hash functions")."""


def scrambled(xp: Any, bits: Array, work: Array | None = None) -> Array:
    """A hash of each number of ``bits`` (uint32), in place; ``work`` is room for the shifted bits."""
    work = xp.empty_like(bits) if work is None else work
    for shift, factor in ROUNDS:
        xp.right_shift(bits, xp.uint32(shift), out=work)
        xp.bitwise_xor(bits, work, out=bits)
        xp.multiply(bits, xp.uint32(factor), out=bits)
    return bits


def scrambled_number(bits: int) -> int:
    """The same hash of a Python number."""
    for shift, factor in ROUNDS:
        bits = (bits ^ (bits >> shift)) * factor & 0xFFFFFFFF
    return bits


def hash_limit(p: float) -> int:
    """The number that a hash is below with probability ``p``."""
    return int(min(p * 2**32, 2**32 - 1))
