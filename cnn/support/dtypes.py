"""The dtypes that networks compute in."""

from typing import Any

from backends.text import did_you_mean
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError

DTYPES = ("float32", "float64")
DTYPES_ELSEWHERE = {
    **dict.fromkeys(("fp32", "f32", "float", "single", "32"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double", "64"), "float64"),
}


def require_dtype(name: Any) -> None:
    """Raise ArgumentError unless a network can compute in the dtype of this name."""
    if not isinstance(name, str) or name not in DTYPES:
        meant = did_you_mean(name, DTYPES, DTYPES_ELSEWHERE)
        raise ArgumentError(f"dtype is {shown(name)}, expected {' or '.join(DTYPES)}{meant}")
