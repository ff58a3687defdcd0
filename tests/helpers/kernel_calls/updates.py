"""Optimizers' updates."""

import numpy as np

from helpers.kernel_calls.drawn import numbers


def momentum(nesterov, decay):
    return {"momentum": np.full(1, 0.9), "nesterov": nesterov, "weight_decay": decay}


def moments():
    return numbers(300), numbers(300), numbers(300), abs(numbers(300))


def adams(decoupled):
    return {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.01, "decoupled": decoupled}


CALLS = {
    "sgd": lambda: ("sgd", numbers(300), numbers(300), None, numbers(1), *momentum(False, 0.1).values()),
    "sgd with momentum": lambda: (
        "sgd", numbers(300), numbers(300), numbers(300), numbers(1), *momentum(False, 0.1).values(),
    ),
    "sgd with nesterov": lambda: (
        "sgd", numbers(300), 1e-33 * numbers(300), 1e-30 * numbers(300), numbers(1),
        *momentum(True, 0.0).values(),
    ),
    "sgd, without a gradient that is a number": lambda: (
        "sgd", numbers(9), np.full(9, np.nan), numbers(9), numbers(1), *momentum(False, 0.1).values(),
    ),
    "next_powers": lambda: ("next_powers", np.array([0.9, 0.999]), (0.9, 0.999)),
    "adam": lambda: (
        "adam", *moments(), np.array([0.9, 0.999]), numbers(1), *adams(False).values(),
    ),
    "adam, without a gradient that is a number": lambda: (
        "adam", numbers(9), np.full(9, np.nan), numbers(9), numbers(9), np.array([0.9, 0.999]), numbers(1),
        *adams(False).values(),
    ),
    "adamw": lambda: (
        "adam", *moments(), np.array([0.81, 0.998]), numbers(1), *adams(True).values(),
    ),
}  # fmt: skip
