"""Schedules: factors of the optimizer's learning rate over the progress of a run, from 0 to 1.

A schedule is called with the progress of the run, the share of its steps that is done, and returns a
factor. During ``warmup`` the factor rises linearly from 0 to 1 (Goyal et al. 2017); the rest of the run
follows the schedule. If ``warmup`` is below 1, it is a share of the run. Otherwise it is a number of
steps, limited to a fifth of the run.
"""

from dataclasses import dataclass, replace
from math import cos, inf, pi

from cnn.support.arguments import number
from cnn.support.errors import ArgumentError

LONGEST_WARMUP = 0.2  # of the run, for a warm-up in steps


@dataclass(frozen=True)
class Schedule:
    """Base class of schedules. The factor is 1."""

    warmup: float = 0.0

    def __post_init__(self) -> None:
        self._check("warmup")
        if self.warmup >= 1 and not self.warmup.is_integer():
            raise ArgumentError(
                f"warmup is {self.warmup:g}, expected a share of the run (below 1) or a whole number of steps"
            )

    def over(self, steps: int) -> "Schedule":
        """This schedule for a run of ``steps`` steps; a warm-up in steps becomes a share of the run."""
        if self.warmup < 1:
            return self
        return replace(self, warmup=min(self.warmup / steps, LONGEST_WARMUP))

    def _check(self, name: str, below: float = inf) -> None:
        """Convert the field ``name`` to a float, or raise ArgumentError."""
        object.__setattr__(self, name, number(name, getattr(self, name), below=below))

    def __call__(self, progress: float) -> float:
        """The factor at ``progress``, from 0 to 1."""
        if self.warmup >= 1:
            raise ArgumentError(
                f"a warm-up of {self.warmup:g} steps depends on the length of the run: call over(steps) first"
            )
        if progress < self.warmup:
            return progress / self.warmup
        return self.decay((progress - self.warmup) / (1 - self.warmup))

    def decay(self, progress: float) -> float:
        """The factor at ``progress`` of the part after the warm-up."""
        return 1.0


class Constant(Schedule):
    """A constant learning rate."""


@dataclass(frozen=True)
class Step(Schedule):
    """The learning rate is multiplied by ``factor`` each time a share ``every`` of the run is done."""

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
                f"factor is {self.factor} after each {self.every} of the run, which overflows: "
                "use a smaller factor or a larger share"
            ) from None

    def decay(self, progress: float) -> float:
        return self.factor ** int(progress / self.every)


@dataclass(frozen=True)
class _Ending(Schedule):
    """Base class of schedules from 1 to ``end``."""

    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("end")


class Linear(_Ending):
    """Linear decay to ``end``."""

    def decay(self, progress: float) -> float:
        return 1 + (self.end - 1) * progress


class Cosine(_Ending):
    """Decay along half a cosine to ``end`` (Loshchilov & Hutter 2017, "SGDR", without restarts)."""

    def decay(self, progress: float) -> float:
        return self.end + (1 - self.end) * (1 + cos(pi * progress)) / 2


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "linear": Linear,
    "cosine": Cosine,
}
