"""Losses, and what a log counts."""

import numpy as np

from helpers.kernel_calls.drawn import RANDOM, F, N, labels, numbers

WIDE, MANY = (40, 21), (F, 1300)  # (classes, samples): outputs that lanes share, samples for many blocks
PICTURES = 3, 17, 23, 5  # more outputs than one block takes
TIED = np.array([0.0, 0.1, 0.1, 0.2])


def probabilities(*shape):
    raw = RANDOM.uniform(0, 1, shape)
    raw[0, :3], raw[1, 3:5] = 0, 1  # where the loss is cut off
    return raw


def shares_of(classes, N):
    """Columns that add up to 1, some with zeros."""
    raw = abs(numbers(classes, N))
    raw[: classes // 2, ::3] = 0
    return raw / raw.sum(axis=0)


def results(*shape):
    """``losses`` and ``dy``, to be written to, and a divisor."""
    return np.full(shape[-1], np.nan), np.full(shape, np.nan), 7


def mean_losses(function, *settings, make=numbers, weigh=lambda *shape: ()):
    """Calls of a loss that is a mean over the outputs; ``weigh`` gives arguments that depend on the shape."""

    def call(shape, targets, *sums):
        between = (*weigh(*shape), *settings)
        return (function, make(*shape), targets, *between, *results(*shape), *sums)

    return {
        f"{function} of labels": lambda: call((F, N), labels(), numbers(3)),
        f"{function} of numbers": lambda: call(WIDE, numbers(*WIDE).round(1), numbers(3)),
        f"{function} of many samples": lambda: call(MANY, labels(MANY[1]), numbers(3)),
        f"{function} without sums": lambda: call((F, N), numbers(F, N)),
        f"{function} of pictures": lambda: call(PICTURES, numbers(*PICTURES).round(), numbers(3)),
        f"{function} of small pictures": lambda: call((F, 2, 3, N), numbers(F, 2, 3, N), numbers(3)),
    }


def counts(function, *arguments, sums):
    """Calls of what a metric counts, for labels of which one is no class, and for numbers; with ties."""

    def call(shape, targets, shares=None):
        y = RANDOM.choice(TIED, shape) if function != "count_confidence" else shares_of(*shape)
        return (function, y, targets, *arguments, sums(shape[0]), shares)

    return {
        f"{function} of labels": lambda: call((F, N), labels(N, F + 1)),
        f"{function} with shares": lambda: call((F, N), labels(N, F + 1), labels(N, 2).astype(float)),
        f"{function} of numbers": lambda: call(WIDE, RANDOM.choice(TIED, WIDE)),
        f"{function} of many samples": lambda: call(MANY, labels(MANY[1]), abs(numbers(MANY[1]))),
    }


def tallied(shape, targets, *shares):
    losses, y, sums = numbers(shape[-1]), numbers(*shape).round(), numbers(5 if shares else 3)
    return ("tally", losses, y, targets, sums, *shares)


CALLS = {
    "cross_entropy": lambda: ("cross_entropy", 50 * numbers(F, N), labels(), numbers(N), numbers(F, N), 7),
    "cross_entropy with sums": lambda: (
        "cross_entropy", numbers(F, 300), labels(300), numbers(300), numbers(F, 300), 300, numbers(3),
    ),
    "cross_entropy of numbers": lambda: (
        "cross_entropy", 50 * numbers(F, N), abs(numbers(F, N)), numbers(N), numbers(F, N), 7, numbers(3),
    ),
    "cross_entropy of many classes": lambda: (
        "cross_entropy", 50 * numbers(*WIDE), labels(21, 40), *results(*WIDE), numbers(3),
    ),
    "cross_entropy of many samples": lambda: (
        "cross_entropy", numbers(*MANY), shares_of(*MANY), *results(*MANY), numbers(3),
    ),
    "cross_entropy without a number": lambda: (
        "cross_entropy", np.where(numbers(F, N) > 1.9, np.nan, 1.0), labels(), *results(F, N), numbers(3),
    ),
    "focal of labels": lambda: ("focal", 5 * numbers(F, N), labels(), 2.0, *results(F, N), numbers(3)),
    "focal of numbers": lambda: (
        "focal", 5 * numbers(*WIDE), shares_of(*WIDE), 0.5, *results(*WIDE), numbers(3),
    ),
    "focal of many samples": lambda: (
        "focal", numbers(*MANY), labels(MANY[1]), 3.0, *results(*MANY), numbers(3),
    ),
    "focal that is cross entropy": lambda: ("focal", numbers(F, N), labels(), 0.0, *results(F, N)),
    **mean_losses("binary_cross_entropy", make=probabilities),
    **mean_losses("logistic_loss", weigh=lambda classes, *rest: (abs(numbers(classes)),)),
    **mean_losses("squared_error"),
    **mean_losses("absolute_error", make=lambda *shape: numbers(*shape).round(1)),
    **mean_losses("huber", 0.5),
    "class_targets": lambda: (
        "class_targets", labels(), abs(numbers(F)), 0.1, 2, numbers(F, N), numbers(N),
    ),
    "class_targets of labels that are no class": lambda: (
        "class_targets", labels() * 2 - 5, abs(numbers(F)), 0.1, None, numbers(F, N), numbers(N),
    ),
    "class_targets of numbers": lambda: (
        "class_targets", shares_of(F, N), abs(numbers(F)), 0.1, None, numbers(F, N), numbers(N),
    ),
    "weigh": lambda: ("weigh", numbers(N), numbers(F, N), numbers(N)),
    "weigh pictures": lambda: ("weigh", numbers(5), numbers(*PICTURES), numbers(5)),
    "add_up": lambda: ("add_up", numbers(300), numbers(1)),
    "divide": lambda: ("divide", numbers(300), numbers(1)),
    "divide by 0": lambda: ("divide", numbers(300), np.zeros(1)),
    "tally": lambda: tallied((F, 300), labels(300)),
    "tally of numbers": lambda: tallied(WIDE, numbers(*WIDE)),
    "tally with shares": lambda: tallied((F, N), labels(), labels(N, 3).astype(float)),
    "tally of many samples": lambda: tallied(MANY, numbers(*MANY), labels(MANY[1], 2).astype(float)),
    "tally of many samples in sums that have places for shares": lambda: (
        "tally", numbers(MANY[1]), numbers(*MANY), numbers(*MANY), numbers(5),
    ),
    "tally of pictures": lambda: tallied(PICTURES, numbers(*PICTURES)),
    **counts("count_top", 3, sums=lambda classes: numbers(2)),
    **counts("count_pairs", sums=lambda classes: numbers(classes, classes)),
    **counts("count_confidence", sums=lambda classes: numbers(3, 15)),
}  # fmt: skip
