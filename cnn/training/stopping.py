"""Callbacks that end a training run before its last epoch."""

import time

from cnn.support.arguments import number, whole
from cnn.support.errors import ArgumentError
from cnn.training.callbacks import Callback
from cnn.training.history import best_epoch, is_smaller_better, metric_of
from cnn.training.run import Run


class Stop(Callback):
    """Base class of callbacks that end a run early."""

    has_ended = False  # whether it has ended the run
    reason: str
    """Why it ends a run, in words."""

    def end(self, run: Run) -> None:
        self.has_ended = run.stop = True


class _StopsAfterEpochs(Stop):
    """Ends the run after an epoch, or at once if a run that is resumed should have ended already."""

    def is_over(self, run: Run) -> bool:
        """Whether the run should end after the epochs so far."""
        raise NotImplementedError

    def on_start(self, run: Run) -> None:
        self.has_ended = False
        if run.history and self.is_over(run):
            self.end(run)

    def on_epoch(self, run: Run, record: dict[str, object]) -> None:
        if self.is_over(run):
            self.end(run)


class EarlyStopping(_StopsAfterEpochs):
    """Ends the run if ``metric`` has not improved by more than ``least_gain`` for ``patience`` epochs.

    ``metric`` is a column of the history; ArgumentError if there is none of this name.
    """

    def __init__(self, patience: int = 10, metric: str = "validation_loss", least_gain: float = 0.0) -> None:
        self.patience, self.metric = whole("patience", patience), metric
        self.least_gain = number("least_gain", least_gain)
        self.reason = f"{metric} has not improved for {patience} epoch{'s' * (patience > 1)}"

    def is_over(self, run: Run) -> bool:
        return len(run.history) - best_epoch(run.history, self.metric, self.least_gain) >= self.patience


class StopAt(_StopsAfterEpochs):
    """Ends the run as soon as ``metric`` is at least ``value``, or at most for a loss or an error.

    ``metric`` is a column of the history. None: validation_accuracy, or accuracy without validation data.
    """

    def __init__(self, value: float, metric: str | None = None) -> None:
        self.value, self.metric = number("value", value), metric
        self.reason = f"{metric or 'the accuracy'} has reached {value:g}"

    def is_over(self, run: Run) -> bool:
        names = ("validation_accuracy", "accuracy")
        metric = self.metric or next((name for name in names if name in run.history[-1]), names[-1])
        latest = metric_of(run.history, metric)[-1]
        return latest <= self.value if is_smaller_better(metric) else latest >= self.value


class MaxTime(Stop):
    """Ends the run after the step in which ``minutes`` have passed since it started, or was resumed."""

    def __init__(self, minutes: float) -> None:
        self.minutes = number("minutes", minutes)
        if not self.minutes:
            raise ArgumentError("minutes is 0, expected a number above 0")
        self.reason = f"{minutes:g} minutes have passed"

    def on_start(self, run: Run) -> None:
        self.has_ended = False
        self._end = time.monotonic() + 60 * self.minutes

    def on_step(self, run: Run) -> None:
        if time.monotonic() >= self._end:
            self.end(run)
