"""Schedules: factors of the optimizer's learning rate, or momentum, over the progress of a run, from 0 to 1.

A schedule is called with the progress of the run, the share of its steps that is done, and returns a
factor. During ``warmup`` the factor rises linearly from 0 to 1 (Goyal et al. 2017); the rest of the run
follows the schedule. If ``warmup`` is below 1, it is a share of the run. Otherwise it is a number of
steps, limited to a fifth of the run. :class:`Chain` joins schedules, :class:`Piecewise` draws any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import cos, inf, isclose, log, pi
from typing import Any

import numpy as np

from cnn.support.arguments import number, shown, whole
from cnn.support.errors import ArgumentError
from cnn.training.history import is_smaller_better, metric_of

LONGEST_WARMUP = 0.2  # of the run, for a warm-up in steps
MOST_RESTARTS = 500


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

    def require(self, has_validation: bool) -> None:
        """Raise ArgumentError if the schedule needs validation images and there are none."""

    def reduction(self, history: Sequence[Mapping[str, Any]]) -> float:
        """A further factor that follows from the epochs so far, for the next epoch."""
        return 1.0

    @property
    def momentum(self) -> "Schedule | None":
        """The schedule of the momentum that belongs to this one; None: the momentum does not change."""
        return None


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


@dataclass(frozen=True)
class Exponential(_Ending):
    """Exponential decay to ``end``: the same factor in every step."""

    end: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.end:
            raise ArgumentError(
                "end is 0, which an exponential decay does not reach: expected a number above 0"
            )

    def decay(self, progress: float) -> float:
        return float(self.end**progress)


@dataclass(frozen=True)
class Polynomial(_Ending):
    """Decay to ``end`` along ``(1 - progress)^power``, as PyTorch's PolynomialLR."""

    power: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("power")

    def decay(self, progress: float) -> float:
        return self.end + (1 - self.end) * float((1 - progress) ** self.power)


@dataclass(frozen=True)
class Cosine(_Ending):
    """Decay along half a cosine to ``end``, which begins again ``restarts`` times.

    From "SGDR" (Loshchilov & Hutter 2017). Each cycle is ``growth`` times as long as the one before.
    """

    restarts: int = 0
    growth: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("restarts", self.restarts, least=0)
        self._check("growth")
        if not self.growth:
            raise ArgumentError("growth is 0, expected a number above 0 such as 2")
        if self.restarts * max(1, abs(log(self.growth))) > MOST_RESTARTS:
            raise ArgumentError(
                f"restarts is {shown(self.restarts)} with growth {self.growth:g}, expected at most "
                f"{MOST_RESTARTS}, or fewer with a growth that is far from 1"
            )

    def decay(self, progress: float) -> float:
        lengths = [self.growth**number for number in range(self.restarts + 1)]
        at = progress * sum(lengths)
        for length in lengths[:-1]:
            if at < length:
                break
            at -= length
        else:
            length = lengths[-1]
        return self.end + (1 - self.end) * (1 + cos(pi * min(1.0, at / length))) / 2


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Rises along half a cosine from ``start`` to 1 at ``peak``, and falls to ``end`` (Smith 2018).

    The momentum goes the other way, from its value down to ``lowest_momentum`` times that and back. The
    defaults are those of PyTorch's OneCycleLR for a momentum of 0.95.
    """

    peak: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 25e4
    lowest_momentum: float = 0.85 / 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("peak")
        if not 0 < self.peak < 1:
            raise ArgumentError(f"peak is {self.peak:g}, expected a share of the run, above 0 and below 1")
        for name in ("start", "end", "lowest_momentum"):
            self._check(name)

    def decay(self, progress: float) -> float:
        return self._between(progress, self.start, 1.0, self.end)

    def _between(self, progress: float, start: float, peak: float, end: float) -> float:
        """From ``start`` to ``peak`` and on to ``end``, each along half a cosine."""
        if progress < self.peak:
            return peak + (start - peak) * (1 + cos(pi * progress / self.peak)) / 2
        return end + (peak - end) * (1 + cos(pi * (progress - self.peak) / (1 - self.peak))) / 2

    @property
    def momentum(self) -> Schedule:
        return _OneCycleMomentum(
            **{name: getattr(self, name) for name in ("warmup", "peak", "lowest_momentum")}
        )


class _Momentum(Schedule):
    """A schedule of the momentum, which does not rise from 0 in a warm-up but has its first value there."""

    def __call__(self, progress: float) -> float:
        return super().__call__(max(progress, self.warmup))


class _OneCycleMomentum(_Momentum, OneCycle):
    """The momentum of :class:`OneCycle`."""

    def decay(self, progress: float) -> float:
        return self._between(progress, 1.0, self.lowest_momentum, 1.0)


@dataclass(frozen=True)
class Piecewise(Schedule):
    """Straight lines between points (progress, factor), outside of which the factor is constant.

    ``Piecewise(points=[(0, 0.2), (0.23, 1), (1, 0)])`` is a triangle.
    """

    points: Sequence[tuple[float, float]] = ((0.0, 1.0), (1.0, 0.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "expected pairs (progress, factor) in order, such as [(0, 0), (0.3, 1), (1, 0)]"
        try:
            points = tuple((number("progress", at), number("factor", factor)) for at, factor in self.points)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"points is {shown(self.points)}, {expected} ({error})") from None
        progress = [at for at, _ in points]
        if not points or progress != sorted(set(progress)) or progress[-1] > 1:
            raise ArgumentError(f"points is {shown(self.points)}, {expected}")
        object.__setattr__(self, "points", points)

    def decay(self, progress: float) -> float:
        return float(np.interp(progress, *np.transpose(self.points)))


@dataclass(frozen=True)
class Plateau(Schedule):
    """Multiplies the learning rate by ``factor`` each time ``metric`` stops improving.

    As PyTorch's ReduceLROnPlateau with its relative threshold: the metric has not improved by more than the
    share ``threshold`` of its best value for more than ``patience`` epochs. The rate does not fall below
    ``least`` times the learning rate.

    Parameters
    ----------
    metric : str
        A column of the history; ArgumentError if there is none of this name. Smaller is better for names
        with "loss" or "error" in them, larger for others.
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    metric: str = "validation_loss"
    least: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("threshold", "least"):
            self._check(name)
        self._check("factor", below=1)
        whole("patience", self.patience, least=0)
        if not isinstance(self.metric, str):
            raise ArgumentError(f'metric is {shown(self.metric)}, expected a name such as "validation_loss"')

    def require(self, has_validation: bool) -> None:
        if self.metric.startswith("validation") and not has_validation:
            raise ArgumentError(
                f"schedule watches {self.metric}, but there are no validation images: give some, or another "
                'metric such as "loss"'
            )

    def reduction(self, history: Sequence[Mapping[str, Any]]) -> float:
        found, best, bad = 1.0, inf, 0
        sign = 1 if is_smaller_better(self.metric) else -1
        for value in metric_of(history, self.metric):
            if sign * value < (best - self.threshold * abs(best) if best < inf else inf):
                best, bad = sign * value, 0
            else:
                bad += 1
            if bad > self.patience:
                found, bad = max(found * self.factor, self.least), 0
        return found


@dataclass(frozen=True)
class Chain(Schedule):
    """Schedules one after the other, each for its share of the run.

    ``Chain(parts=[(0.1, Polynomial()), (0.9, Cosine())])``; the shares add up to 1.
    """

    parts: Sequence[tuple[float, Schedule]] = field(default_factory=lambda: ((1.0, Schedule()),))

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "expected pairs (share of the run, schedule) whose shares add up to 1"
        try:
            parts = tuple((number("share", share), schedule) for share, schedule in self.parts)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"parts is {shown(self.parts)}, {expected} ({error})") from None
        if not all(share and isinstance(schedule, Schedule) for share, schedule in parts):
            raise ArgumentError(f"parts is {shown(self.parts)}, {expected}")
        if not isclose(sum(share for share, _ in parts), 1, abs_tol=1e-9):
            raise ArgumentError(f"parts is {shown(self.parts)}, {expected}")
        object.__setattr__(self, "parts", parts)

    def over(self, steps: int) -> "Schedule":
        parts = [(share, part.over(max(1, round(share * steps)))) for share, part in self.parts]
        return type(self)(super().over(steps).warmup, parts)

    def decay(self, progress: float) -> float:
        schedule, local = self._part(progress)
        return schedule(local)

    def _part(self, progress: float) -> tuple[Schedule, float]:
        """The schedule at ``progress``, and the progress of its own part."""
        start = 0.0
        for share, schedule in self.parts[:-1]:
            if progress < start + share:
                return schedule, (progress - start) / share
            start += share
        share, schedule = self.parts[-1]
        return schedule, min(1.0, (progress - start) / share)

    def reduction(self, history: Sequence[Mapping[str, Any]]) -> float:
        found = 1.0
        for _, schedule in self.parts:
            found *= schedule.reduction(history)
        return found

    @property
    def momentum(self) -> Schedule | None:
        own = [(share, schedule.momentum or Constant()) for share, schedule in self.parts]
        return _ChainMomentum(self.warmup, own) if any(part.momentum for _, part in self.parts) else None


class _ChainMomentum(_Momentum, Chain):
    """The momentum of :class:`Chain`."""


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "polynomial": Polynomial,
    "one-cycle": OneCycle,
    "plateau": Plateau,
}
