"""Optimizers' updates."""

import numpy as np

from helpers.kernel_calls.drawn import numbers

LONG = 2500  # numbers, for a norm in several parts


def momentum(nesterov, decay):
    return {"momentum": np.full(1, 0.9), "nesterov": nesterov, "weight_decay": decay}


def moments(size=300):
    return numbers(size), numbers(size), numbers(size), abs(numbers(size))


def fading(size=300):
    """A vector whose every third number is so small that as a state it becomes zero."""
    return numbers(size) * np.where(np.arange(size) % 3, 1, 1e-32)


def every_other(step):
    """A vector with zeros in the places whose number is a multiple of ``step``."""
    return numbers(300) * (np.arange(300) % step > 0)


def adams(decoupled):
    return ADAPTIVE | {"decoupled": decoupled}


def matrices(rows, columns):
    return (*(numbers(rows, columns) for _ in range(3)), 0.1 * abs(numbers(1)), np.full(1, 0.9))


def nothing():
    return np.full(9, np.nan)


ADAPTIVE = {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.01}
RMSPROP = {"alpha": 0.99, "epsilon": 1e-8, "momentum": 0.9, "weight_decay": 0.01}
PROGRESS = np.array([4, 0.2, 0.8, 0.81, 0.9])


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
        "sgd", numbers(9), nothing(), numbers(9), numbers(1), *momentum(False, 0.1).values(),
    ),
    "next_powers": lambda: ("next_powers", np.array([0.9, 0.999]), (0.9, 0.999)),
    "adam": lambda: (
        "adam", *moments(), np.array([0.9, 0.999]), numbers(1), *adams(False).values(),
    ),
    "adam, without a gradient that is a number": lambda: (
        "adam", numbers(9), nothing(), numbers(9), numbers(9), np.array([0.9, 0.999]), numbers(1),
        *adams(False).values(),
    ),
    "adamw": lambda: (
        "adam", *moments(), np.array([0.81, 0.998]), numbers(1), *adams(True).values(),
    ),
    "rmsprop": lambda: (
        "rmsprop", numbers(300), fading(), abs(fading()), None, None, numbers(1), *RMSPROP.values(),
    ),
    "rmsprop, centered with momentum": lambda: (
        "rmsprop", numbers(300), fading(), abs(numbers(300)) + 1, fading() / 10, fading(), numbers(1),
        *RMSPROP.values(),
    ),
    "rmsprop, fading": lambda: (
        "rmsprop", numbers(300), np.zeros(300), abs(fading()) + 1, fading() / 10, fading(), numbers(1),
        *(RMSPROP | {"weight_decay": 0.0}).values(),
    ),
    "rmsprop, without a gradient that is a number": lambda: (
        "rmsprop", numbers(9), nothing(), numbers(9), numbers(9), numbers(9), numbers(1), *RMSPROP.values(),
    ),
    "adagrad": lambda: ("adagrad", numbers(300), fading(), abs(fading()), numbers(1), 1e-10, 0.01),
    "next_nadam": lambda: ("next_nadam", PROGRESS.copy(), 0.9, 0.999, 0.004),
    "nadam": lambda: ("nadam", *moments(), PROGRESS.copy(), numbers(1), *ADAPTIVE.values()),
    "lion": lambda: (
        "lion", numbers(300), every_other(2), every_other(3) * fading(), numbers(1), (0.9, 0.99), 0.01,
    ),
    "lion, without a gradient that is a number": lambda: (
        "lion", numbers(9), nothing(), numbers(9), numbers(1), (0.9, 0.99), 0.01,
    ),
    "lamb": lambda: ("lamb", *moments(), np.array([0.6, 0.98]), numbers(1), *ADAPTIVE.values()),
    "lamb of many numbers": lambda: (
        "lamb", *moments(LONG), np.array([0.6, 0.98]), numbers(1), *ADAPTIVE.values(),
    ),
    "lamb of zeros": lambda: (
        "lamb", np.zeros(300), *moments()[1:], np.array([0.6, 0.98]), numbers(1), *ADAPTIVE.values(),
    ),
    "clip_norm": lambda: ("clip_norm", numbers(300), 3.0),
    "clip_norm of many numbers": lambda: ("clip_norm", numbers(LONG), 3.0),
    "clip_norm of what is shorter": lambda: ("clip_norm", numbers(300), 1e3),
    "clip_norm, without a gradient that is a number": lambda: (
        "clip_norm", np.where(np.arange(300) == 7, np.nan, numbers(300)), 3.0,
    ),
    "scale_to_norm": lambda: ("scale_to_norm", numbers(LONG), 3.0),
    "scale_to_norm of zeros": lambda: ("scale_to_norm", np.zeros(300), 3.0),
    **{
        f"unscale {name}": lambda number=number, every=every: (
            "unscale", np.where(np.arange(LONG) == LONG // 2, number, numbers(LONG)), np.full(1, 64.0),
            np.array([4, 2]), every,
        )
        for name, number, every in (
            ("before the scale is doubled", 1.0, 6),
            ("when the scale is doubled", 1.0, 5),
            ("NaN", np.nan, 5),
            ("what is infinite", -np.inf, 9),
        )
    },
    "unscale by the largest scale": lambda: (
        "unscale", numbers(300), np.full(1, 2.0**24), np.array([8, 0]), 3,
    ),
    "muon": lambda: ("muon", *matrices(5, 9), True, 0.01, 5),
    "muon of a tall matrix": lambda: ("muon", *matrices(40, 30), False, 0.0, 4),
    "average": lambda: ("average", numbers(300), numbers(300), np.array([3]), 0.9),
    "average for the first time": lambda: ("average", numbers(300), numbers(300), np.array([0]), 0.9),
    "lookahead": lambda: ("lookahead", numbers(300), numbers(300), np.array([4]), 5, 0.3),
    "lookahead between": lambda: ("lookahead", numbers(300), numbers(300), np.array([5]), 5, 0.3),
    "count_update": lambda: ("count_update", np.array([7, 3])),
}  # fmt: skip
