"""The 16-bit dtypes, in which activations and the weights of products may be stored."""

from backends.memory import Array

HALVES = ("bfloat16", "float16")


def is_half(array: Array) -> bool:
    """Whether the numbers of an array are bfloat16 or float16."""
    return array.dtype.itemsize == 2 and array.dtype.kind in "fV"  # NumPy takes bfloat16 for bytes
