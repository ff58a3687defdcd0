"""The history of a training run: a dictionary for each epoch, whose columns are metrics."""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

from cnn.support.errors import ArgumentError

History = Sequence[Mapping[str, Any]]


def is_smaller_better(metric: str) -> bool:
    """Whether smaller values of the metric of this name are better: a loss or an error."""
    return "loss" in metric or "error" in metric


def metric_of(history: History, name: str) -> list[float]:
    """The values of a metric, infinitely bad ones for NaN; ArgumentError if the history does not have it."""
    if history and name not in history[-1]:
        hint = ": give validation data" if name.startswith("validation") else ""
        raise ArgumentError(f"the history has no {name}{hint}; it has {', '.join(map(str, history[-1]))}")
    worst = inf if is_smaller_better(name) else -inf
    values = [float(record.get(name, worst)) for record in history]
    return [value if isfinite(value) else worst for value in values]


def best_epoch(history: History, name: str, least_gain: float = 0.0) -> int:
    """The epoch, from 1, with the best value of a metric, the first one of equals; 0 if there is none.

    A better value must be better by more than ``least_gain``.
    """
    sign = 1 if is_smaller_better(name) else -1
    best, found = inf, 0
    for epoch, value in enumerate(metric_of(history, name), 1):
        if sign * value < best - (least_gain if isfinite(best) else 0):
            best, found = sign * value, epoch
    return found
