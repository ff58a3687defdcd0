"""The samples of a step."""

import numpy as np

from helpers.kernel_calls.drawn import RANDOM, N, labels, numbers


def batches(position):
    cursor, order = np.array([position, position // 5]), np.stack([RANDOM.permutation(23) for _ in range(3)])
    return cursor, order, labels(23), numbers(4), np.zeros((3, 5), int), np.zeros(5, int), np.zeros(1)


def without_labels(position):
    cursor, order, _, rates, chosen, _, rate = batches(position)
    return cursor, order, None, rates, chosen, None, rate


CALLS = {
    "next_batch without labels": lambda: ("next_batch", *without_labels(10)),
    "next_batch": lambda: ("next_batch", *batches(10)),
    "next_batch beyond the end": lambda: ("next_batch", *batches(20)),
    "gather_batch of bytes": lambda: (
        "gather_batch", RANDOM.integers(0, 256, (50, 3, 5, 7), dtype=np.uint8), labels(N, 50),
        numbers(3, 5, 7, N),
    ),
    "gather_batch of bytes, normalized": lambda: (
        "gather_batch", RANDOM.integers(0, 256, (50, 3, 5, 7), dtype=np.uint8), labels(N, 50),
        numbers(3, 5, 7, N), numbers(3), numbers(3),
    ),
    "gather_batch of numbers, normalized": lambda: (
        "gather_batch", numbers(50, 3, 9, 9), labels(N, 50), numbers(3, 9, 9, N), numbers(3), numbers(3),
    ),
    "gather_batch of many numbers": lambda: (
        "gather_batch", numbers(9, 1, 23, 23), labels(N, 9), numbers(1, 23, 23, N),
    ),
    "gather_batch of numbers": lambda: (
        "gather_batch", numbers(50, 1, 9, 9), labels(N, 50), numbers(1, 9, 9, N),
    ),
}  # fmt: skip
