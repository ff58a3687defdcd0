"""Schedules: the learning rate as a share of the optimizer's own, over a run from 0 to 1.

A schedule is called with the progress of the run, the share of its steps that is done, and gives a
factor. ``warmup`` is the share of the run in which the factor rises from 0 to 1 in a straight line
(Goyal et al. 2017); the rest of the run follows the schedule.
"""

from dataclasses import dataclass
from math import cos, inf, pi

from cnn.arguments import number
from cnn.errors import ArgumentError


@dataclass(frozen=True)
class Schedule:
    """The learning rate as given: a factor of 1."""

    warmup: float = 0.0

    def __post_init__(self) -> None:
        self._check("warmup", below=1)

    def _check(self, name: str, below: float = inf) -> None:
        """Make the field of this name a float, or raise ArgumentError."""
        object.__setattr__(self, name, number(name, getattr(self, name), below=below))

    def __call__(self, progress: float) -> float:
        """The factor after ``progress`` of the run, 0 to 1."""
        if progress < self.warmup:
            return progress / self.warmup
        return self.decay((progress - self.warmup) / (1 - self.warmup))

    def decay(self, progress: float) -> float:
        """The factor after ``progress`` of what comes after the warm-up."""
        return 1.0


class Constant(Schedule):
    """The learning rate as given."""


@dataclass(frozen=True)
class Step(Schedule):
    """Multiplied by ``factor`` after each ``every`` of the run."""

    every: float = 1 / 3
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("factor")
        self._check("every")
        if not 0 < self.every <= 1:
            raise ArgumentError(f"every is {self.every}, expected a share of the run, above 0 and at most 1")
        try:
            self.decay(1.0)
        except OverflowError:
            raise ArgumentError(
                f"factor is {self.factor} after each {self.every} of the run, which ends beyond all numbers; "
                "take a smaller factor or a larger share"
            ) from None

    def decay(self, progress: float) -> float:
        return self.factor ** int(progress / self.every)


@dataclass(frozen=True)
class _Ending(Schedule):
    """What goes from 1 to ``end``."""

    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("end")


class Linear(_Ending):
    """In a straight line to ``end``."""

    def decay(self, progress: float) -> float:
        return 1 + (self.end - 1) * progress


class Cosine(_Ending):
    """Along half a cosine to ``end`` (Loshchilov & Hutter 2017, "SGDR", without restarts)."""

    def decay(self, progress: float) -> float:
        return self.end + (1 - self.end) * (1 + cos(pi * progress)) / 2


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "linear": Linear,
    "cosine": Cosine,
}
