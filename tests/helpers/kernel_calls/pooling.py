"""Resampling."""

from backends.kernels.sampling import Sampling
from helpers.kernel_calls.drawn import F, N, numbers

ROWS = Sampling(4, (((1, 0.5), (3, 2.0)), (), ((0, 1.0),)))
COLUMNS = Sampling(3, (((2, 1.5),), ((0, 0.25), (1, 0.25), (2, 0.5))))


CALLS = {
    "resample": lambda: ("resample", numbers(F, 4, 3, N), numbers(F, 3, 2, N), ROWS, COLUMNS),
    "resample, transposed": lambda: (
        "resample", numbers(F, 3, 2, N), numbers(F, 4, 3, N), ROWS.transposed, COLUMNS.transposed,
    ),
}  # fmt: skip
