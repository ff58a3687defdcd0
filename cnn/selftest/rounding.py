"""How far the results of a device may be from exact ones.

Sums are computed in float32 or float64. A sum of n products is off by at most n roundings of their magnitudes
(Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1). Rounding errors have both signs,
so as a rule it is off by sqrt(n) (Higham & Mary 2019, "A new approach to probabilistic rounding error
analysis"). The longest sums here have 9,216 numbers, and ``ROUNDINGS`` is more than the square root of that.

A kernel rounds what it writes in 16 bits once and to the nearest number. So each number is off by at most one
rounding of itself, besides what its sum is off by. A kernel that adds up in 16 bits, cuts bits off or rounds
twice is further off.

If numbers are rounded on the way to a result, as between the kernels that another one is composed of, then
the result is off by ``BETWEEN`` roundings of the largest number. Layers that follow each other add up such
errors, which have both signs, too. The same holds for training, where a weight changes by a sum of gradients.
"""

from math import sqrt
from typing import Any

import numpy as np

from backends.dtypes import is_half
from cnn.inspection.differences import require_near
from cnn.support.dtypes import WIDE, master_of
from cnn.support.errors import DisagreementError

ROUNDINGS = 128  # of a sum, relative to the largest result
BETWEEN = 4  # of what is read, of weights, of what lies between two kernels, and of the result
TIES = 0.05  # the share of choices, as of max pooling, that may turn on a rounding to 16 bits

BITS = {"bfloat16": 8, "float16": 11}  # of a number, with the leading one, which is not stored
LEAST = {"bfloat16": 2.0**-134, "float16": 2.0**-25}  # half the space between the smallest numbers


def unit(dtype: str) -> float:
    """The largest relative error of one rounding to 16 bits."""
    return 2.0 ** -BITS[dtype]


def of_sums(dtype: str) -> float:
    """The bound for sums in a network of ``dtype``, relative to the largest number."""
    return ROUNDINGS * float(np.finfo(master_of(dtype)).eps)


def of_passes(dtype: str, passes: int = 1) -> float:
    """The bound after so many passes of layers or kernels in 16 bits, relative to the largest number."""
    return BETWEEN * sqrt(passes) * unit(dtype)


def require_dtype(what: str, expected: Any, array: Any) -> None:
    """Raise DisagreementError unless ``array`` has the expected dtype."""
    if array.dtype != expected:
        raise DisagreementError(f"{what} is {array.dtype}, expected {expected}")


def require_exact(what: str, exact: Any, found: Any, dtype: str, between: bool = False) -> None:
    """Raise DisagreementError if what a kernel wrote is not exact but for rounding.

    ``dtype`` is that of the network that makes the call. ``between`` says that numbers of 16 bits are rounded
    on the way.
    """
    if dtype in WIDE or not (between or is_half(found)):
        require_near(what, exact, found, of_sums(dtype))
    elif found.dtype.kind in "iu":
        _require_most(what, exact, found)
    elif between:
        require_near(what, exact, found.astype(np.float64), of_passes(dtype))
    else:
        _require_rounded_once(what, exact, found.astype(np.float64), dtype)


def _require_rounded_once(what: str, exact: Any, found: Any, dtype: str) -> None:
    before = of_sums(dtype) * np.max(np.abs(exact), initial=0) + LEAST[dtype]
    apart = np.maximum(np.abs(found - exact) - before, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.where(apart == 0, 0, apart / np.abs(exact))
    worst = float(np.max(off, initial=0))
    if not worst <= unit(dtype):  # NaN is not
        raise DisagreementError(
            f"a number in {what} is off by {worst:.1e}, expected at most {unit(dtype):.1e}, one rounding"
        )


def _require_most(what: str, exact: Any, found: Any) -> None:
    share = float(np.mean(exact != found))
    if share > TIES:
        raise DisagreementError(f"{share:.0%} of {what} differs, expected at most {TIES:.0%}")
