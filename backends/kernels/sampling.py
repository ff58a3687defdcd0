"""How the rows or the columns of an image are made of those of another one, by weighted sums."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice

Tap = tuple[int, float]  # a position of the input, and its weight
Run = tuple[slice, slice, float]  # positions of the output, those of the input, and the weight of all

NEAR = 16  # pairs among which the second one of a run is looked for


@dataclass(frozen=True, eq=False)
class Sampling:
    """Each position along an axis of the output as a weighted sum of positions of the input.

    ``taps[p]`` has the summands of the output's position p; one without any is zero. ``size`` is the length
    of the input's axis.
    """

    size: int
    taps: tuple[tuple[Tap, ...], ...]

    def __len__(self) -> int:
        """The length of the output's axis."""
        return len(self.taps)

    @cached_property
    def transposed(self) -> "Sampling":
        """The gradient's way back: each position of the input collects what it gave."""
        back: list[list[Tap]] = [[] for _ in range(self.size)]
        for position, taps in enumerate(self.taps):
            for source, weight in taps:
                back[source].append((position, weight))
        return Sampling(len(self), tuple(map(tuple, back)))

    @property
    def lists(self) -> tuple[list[int], list[float]]:
        """(Where each position's taps start, one start more, and the taps' positions; the taps' weights)."""
        taps = [tap for taps in self.taps for tap in taps]
        starts = accumulate(map(len, self.taps), initial=0)
        return [*starts, *(source for source, _ in taps)], [weight for _, weight in taps] or [0.0]

    @cached_property
    def runs(self) -> list[Run]:
        """The same as additions of slices, each of equal steps and one weight: few for a regular sampling."""
        by_weight: dict[float, list[tuple[int, int]]] = {}
        for position, taps in enumerate(self.taps):
            for source, weight in taps:
                by_weight.setdefault(weight, []).append((position, source))
        return [
            (_slice([to for to, _ in run]), _slice([of for _, of in run]), weight)
            for weight, pairs in by_weight.items()
            for run in _progressions(pairs)
        ]

    @cached_property
    def longest(self) -> int:
        """The most positions of the input in one run."""
        return max((len(range(self.size)[of]) for _, of, _ in self.runs), default=0)


def _progressions(pairs: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The pairs (to, of), sorted, in runs whose members are equal steps apart; ``to`` rises in each."""
    left = dict.fromkeys(pairs)
    while left:
        first, *others = islice(left, NEAR)
        runs = (_from(first, second, left) for second in others if second[0] > first[0])
        run = max(runs, key=len, default=[first])
        for pair in run:
            del left[pair]
        yield run


def _from(
    first: tuple[int, int], second: tuple[int, int], left: dict[tuple[int, int], None]
) -> list[tuple[int, int]]:
    """As many of the pairs in ``left`` as follow ``first`` in the step to ``second``."""
    step, run, following = (second[0] - first[0], second[1] - first[1]), [first], second
    while following in left:
        run.append(following)
        following = following[0] + step[0], following[1] + step[1]
    return run


def _slice(positions: list[int]) -> slice:
    """The slice of positions that are equal steps apart; if they are all the same, of this one."""
    first, last = positions[0], positions[-1]
    step = positions[1] - first if len(positions) > 1 else 1
    if step == 0:
        return slice(first, first + 1)
    end = last + (1 if step > 0 else -1)
    return slice(first, end if end >= 0 else None, step)
