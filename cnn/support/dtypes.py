"""The dtypes that networks compute in.

A mixed-precision network stores activations and the weights of products in bfloat16 or float16. Its
parameters, gradients, statistics, losses and the optimizer's state are float32 (Micikevicius et al. 2018,
"Mixed precision training").
"""

from typing import Any

from backends.backend import Backend
from backends.dtypes import HALVES
from backends.text import did_you_mean
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError

WIDE = ("float32", "float64")
DTYPES = WIDE + HALVES
DTYPES_ELSEWHERE = {
    **dict.fromkeys(("fp32", "f32", "float", "single", "32"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double", "64"), "float64"),
    **dict.fromkeys(("bf16", "brain"), "bfloat16"),
    **dict.fromkeys(("fp16", "f16", "half", "16"), "float16"),
}


def require_dtype(name: Any) -> str:
    """``name`` if it is that of a dtype that networks can compute in, else ArgumentError."""
    if not isinstance(name, str) or name not in DTYPES:
        meant = did_you_mean(name, DTYPES, DTYPES_ELSEWHERE)
        expected = f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}"
        raise ArgumentError(f"dtype is {shown(name)}, expected {expected}{meant}")
    return name


def master_of(dtype: str) -> str:
    """The dtype of the parameters and sums of a network whose activations have this dtype."""
    return "float32" if dtype in HALVES else dtype


def dtype_on(backend: Backend, dtype: str) -> str:
    """``dtype``, or float32 instead of a 16-bit dtype on a device that does not compute in 16 bits."""
    return dtype if backend.has_halves else master_of(dtype)
