"""Sums, and numbers times a factor."""

import numpy as np

from helpers.kernel_calls.drawn import F, N, numbers

CALLS = {
    "add": lambda: ("add", numbers(F, N), numbers(F, N), numbers(F, N)),
    "scale": lambda: ("scale", numbers(F, N), 0.3, numbers(F, N)),
    "sum_rows, short": lambda: ("sum_rows", numbers(F, 5), np.zeros(F)),
    "sum_rows, long": lambda: ("sum_rows", numbers(2, 9, 500), np.zeros(2)),
    "sum_rows, many": lambda: ("sum_rows", numbers(250, 3), np.zeros(250)),
}  # fmt: skip
