"""Run: the state of a training run, which is passed to every callback."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn.network import Network
from cnn.training.distributed.agreement import Agreement, Wish
from cnn.training.metrics import Totals
from cnn.training.step import TrainingStep


@dataclass
class Run:
    """A training run and its progress. A callback that sets ``stop`` ends it after the current step."""

    training: TrainingStep
    epochs: int
    settings: dict[str, Any] = field(
        default_factory=dict
    )  # everything that determines the run, except the data
    epoch: int = 0  # the current epoch, from 1
    step: int = 0  # steps done in this epoch
    history: list[dict[str, Any]] = field(default_factory=list)
    first_loss: float | None = None  # of the untrained network; None if not known yet
    failure: str | None = None  # why the network is useless after the latest epoch or step, or None
    guess: float = 1.0  # the accuracy of always predicting the most frequent class
    agreement: Agreement = field(default_factory=Agreement)
    seconds_before: float = 0.0  # seconds spent on this epoch before the run was resumed
    _started: float = field(default_factory=time.perf_counter)

    @property
    def network(self) -> Network:
        """The network that is trained."""
        return self.training.network

    @property
    def totals(self) -> Totals:
        """The totals of the epoch so far; reading them waits for the device."""
        return self.training.totals

    @property
    def stop(self) -> bool:
        """Whether the run ends after the current step; with several processes, after the next one."""
        return self.agreement.stops

    @stop.setter
    def stop(self, value: bool) -> None:
        self.agreement.stops = value

    def may_read(self, due: bool = True) -> bool:
        """Whether :attr:`totals` may be read now, which the caller wants if it is ``due``.

        With several processes, this needs a step in which all of them send their sums.
        """
        return self.agreement.grants(Wish.READ, due) and due

    @property
    def steps(self) -> int:
        """The number of steps in an epoch."""
        return len(self.training.feed)

    def save(self, path: str | Path, more: Mapping[str, Any] | None = None) -> None:
        """Write the weights that evaluation uses to ``path``, as :meth:`Network.save` does."""
        with self.training.optimizer.evaluated():
            self.network.save(path, more)

    @property
    def seconds(self) -> float:
        """Seconds spent on this epoch, excluding compilation."""
        return self._clock() - self._started + self.seconds_before

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 1; a run that was resumed within it continues there."""
        if self.epoch != epoch:
            self.epoch, self.step, self.seconds_before = epoch, 0, 0.0
            self.totals.reset()

    def start_clock(self) -> None:
        """Start the clock of :attr:`seconds`."""
        self._started = self._clock()

    def _clock(self) -> float:
        return time.perf_counter() - self.network.backend.kernels.compile_seconds
