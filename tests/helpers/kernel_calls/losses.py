"""Losses, and what a log counts."""

from helpers.kernel_calls.drawn import RANDOM, F, N, labels, numbers


def probabilities():
    raw = RANDOM.uniform(0, 1, (F, N))
    raw[0, :3], raw[1, 3:5] = 0, 1  # where the loss is cut off
    return raw


CALLS = {
    "cross_entropy": lambda: ("cross_entropy", 50 * numbers(F, N), labels(), numbers(N), numbers(F, N), 7),
    "cross_entropy with sums": lambda: (
        "cross_entropy", numbers(F, 300), labels(300), numbers(300), numbers(F, 300), 300, numbers(3),
    ),
    "binary_cross_entropy": lambda: (
        "binary_cross_entropy", probabilities(), labels(), numbers(N), numbers(F, N), 7, numbers(3),
    ),
    "cross_entropy of numbers": lambda: (
        "cross_entropy", 50 * numbers(F, N), abs(numbers(F, N)), numbers(N), numbers(F, N), 7, numbers(3),
    ),
    "class_targets": lambda: (
        "class_targets", labels(), abs(numbers(F)), 0.1, 2, numbers(F, N), numbers(N),
    ),
    "class_targets of labels that are no class": lambda: (
        "class_targets", labels() * 2 - 5, abs(numbers(F)), 0.1, None, numbers(F, N), numbers(N),
    ),
    "tally": lambda: ("tally", numbers(300), numbers(F, 300).round(), labels(300), numbers(3)),
}  # fmt: skip
