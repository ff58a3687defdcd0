"""Run: where a training is, and what every callback is told of it."""

import time
from dataclasses import dataclass, field
from typing import Any

from cnn.network import Network
from cnn.training.metrics import Totals
from cnn.training.step import TrainingStep


@dataclass
class Run:
    """A training and how far it is. A callback that sets ``stop`` ends it after the present step."""

    training: TrainingStep
    epochs: int
    settings: dict[str, Any] = field(default_factory=dict)  # what decides, beside the data, how it goes
    epoch: int = 0  # the present one, from 1
    step: int = 0  # how many of this epoch are done
    history: list[dict[str, Any]] = field(default_factory=list)
    first_loss: float | None = None  # of the untrained network; None: not known yet
    failure: str | None = None  # why the network is of no use after the latest epoch; None: it may be of use
    guess: float = 1.0  # the accuracy of always answering the most frequent class
    stop: bool = False
    seconds_before: float = 0.0  # that this epoch had taken when it was taken up in its middle
    _started: float = field(default_factory=time.perf_counter)

    @property
    def network(self) -> Network:
        """What is trained."""
        return self.training.network

    @property
    def totals(self) -> Totals:
        """Of the epoch so far; reading them waits for the device."""
        return self.training.totals

    @property
    def steps(self) -> int:
        """In an epoch."""
        return len(self.training.feed)

    @property
    def seconds(self) -> float:
        """That this epoch has taken so far, without compiling."""
        return self._clock() - self._started + self.seconds_before

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, from 1; a run that was resumed in the middle of it continues there."""
        if self.epoch != epoch:
            self.epoch, self.step, self.seconds_before = epoch, 0, 0.0
            self.totals.reset()

    def start_clock(self) -> None:
        """Count the seconds from here on."""
        self._started = self._clock()

    def _clock(self) -> float:
        return time.perf_counter() - self.network.backend.kernels.compile_seconds
