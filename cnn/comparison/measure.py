"""The measurements: setups take turns, so that what disturbs the machine disturbs them all."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any

import numpy as np

from backends import Backend
from cnn.comparison.agreement import STEPS, prove
from cnn.comparison.results import Column, Comparison, SweepPoint
from cnn.comparison.setups import Setup
from cnn.comparison.workload import Training, Workload, make_workload, work
from cnn.inspection.timing import LayerWatch, Spread
from cnn.support.arguments import whole
from cnn.support.environment import environment

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
BLOCK = 0.02  # seconds: as many steps are timed at once as this takes
PATIENCE = 5.0  # seconds that a setup may use for its turns; three it has in any case
SLOWEST = 0.2  # seconds: a sweep ends at the batch size where a step takes longer
PAUSE = 0.25  # seconds before a turn: idle threads of a linear algebra library go on spinning for a while
SWEEP_TURNS = 5
LAUNCHES = 100
LONG_ENOUGH = 5e-3  # seconds: a product or a copy that shows the device at full speed


def compare(
    setups: Sequence[Setup],
    model: str = "lenet5",
    batch_size: int = 128,
    dtype: str = "float32",
    rounds: int = 21,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Prove that ``setups`` compute the same training steps, then time them side by side.

    Parameters
    ----------
    setups : sequence of Setup
        The first is what the others are compared with.
    model, batch_size, dtype
        What is trained, on MNIST's images.
    rounds : int
        How often the setups take turns; a slow one takes fewer turns, but at least three.
    say, show : callable
        Are told which phase begins, and how far it is.

    Raises
    ------
    DisagreementError
        Where two setups do not compute the same; nothing is timed then.
    """
    whole("rounds", rounds)
    workload = make_workload(model, batch_size, dtype)
    for setup in setups:  # the first would pay for what all of them share
        show(f"a first step on {setup.name}")
        _first_step(setup, workload)
    firsts = [_first_step(setup, workload) for setup in setups]
    say(f"{STEPS} steps on each, to see that all compute the same")
    losses, agreements = prove(workload, setups, show)
    say("a large product and a large copy on each")
    peaks = [_peaks(setup, dtype) for setup in setups]
    say(f"up to {rounds} rounds of steps, in turns")
    measured = [_Measurements(setup, workload) for setup in setups]
    _take_turns(measured, rounds, show)
    say(f"steps at batch sizes {BATCH_SIZES[0]} to {BATCH_SIZES[-1]}")
    sweeps = _sweep(setups, workload, show)
    fields = [
        {"losses": loss, "agreement": found, "first_step": first, **peak, "sweep": sweep}
        for loss, found, first, peak, sweep in zip(losses, agreements, firsts, peaks, sweeps, strict=True)
    ]
    columns = [one.column(**others) for one, others in zip(measured, fields, strict=True)]
    layers = work(measured[0].training.network, batch_size)
    return Comparison(model, batch_size, dtype, STEPS, environment(), layers, columns)


def _first_step(setup: Setup, workload: Workload) -> float:
    """Seconds of building a network and its first step."""
    with setup.active() as backend:
        return wall_clock(backend, lambda: workload.start(backend).step(), 1)


@dataclass
class _Measurements:
    """A setup in the rounds, with what was measured of it so far, in seconds."""

    setup: Setup
    workload: Workload
    steps: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    launches: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.setup.active() as backend:
            self.training, self._steps_a_block = _warmed_up(self.workload, backend)
            self.watch = LayerWatch(self.training.network)
            self._host_batch = self.workload.batches(self.workload.batch_size, 1).images
            self._number = backend.zeros(1, self.workload.dtype)

    def take_turn(self) -> None:
        """Measure everything once; where steps are short, after one that wakes the device up."""
        with self.setup.active() as backend:
            if self._steps_a_block > 1:
                self.training.step()
            self.steps.append(wall_clock(backend, self.training.step, self._steps_a_block))
            with self.watch.step():
                self.training.plain_step()
            if self.setup.has_own_memory:
                self.moves.append(wall_clock(backend, partial(backend.asarray, self._host_batch), LAUNCHES))
            add = backend.xp.add
            self.launches.append(
                wall_clock(backend, lambda: add(self._number, 1, out=self._number), LAUNCHES)
            )

    def column(self, **others: Any) -> Column:
        """What was measured, with the ``others`` of a column's fields."""
        with self.setup.active() as backend:
            return Column(
                name=self.setup.name,
                device=backend.describe(),
                layers=self.watch.read(),
                step=Spread.of(self.steps),
                move_batch=Spread.of(self.moves) if self.moves else None,
                launch=Spread.of(self.launches),
                **others,
            )


def _take_turns(measured: Sequence[_Measurements], rounds: int, show: Callable[[str], None]) -> None:
    """Let each have its turn, ``rounds`` times or until its patience is used up."""
    used = [0.0] * len(measured)
    for turn in range(rounds):
        show(f"round {turn + 1} of {rounds}")
        for index, one in enumerate(measured):
            if turn < 3 or used[index] < PATIENCE:
                start = time.perf_counter()
                time.sleep(PAUSE)
                one.take_turn()
                used[index] += time.perf_counter() - start


def _sweep(
    setups: Sequence[Setup], workload: Workload, show: Callable[[str], None]
) -> list[list[SweepPoint]]:
    """A training step at each batch size, for each setup as far as its steps stay quick."""
    points: list[list[SweepPoint]] = [[] for _ in setups]
    quick = list(range(len(setups)))
    for batch_size in BATCH_SIZES:
        show(f"batch size {batch_size}")
        trainings = {}
        for index in quick:
            with setups[index].active() as backend:
                trainings[index] = _warmed_up(workload, backend, batch_size)
        seconds: dict[int, list[float]] = {index: [] for index in quick}
        for _ in range(SWEEP_TURNS):
            for index, (training, block) in trainings.items():
                time.sleep(PAUSE)
                with setups[index].active() as backend:
                    training.step()
                    seconds[index].append(wall_clock(backend, training.step, block))
        for index in quick:
            points[index].append(SweepPoint(batch_size, Spread.of(seconds[index])))
        quick = [index for index in quick if points[index][-1].step.median < SLOWEST]
    return points


def _warmed_up(workload: Workload, backend: Backend, batch_size: int | None = None) -> tuple[Training, int]:
    """A training that has had its first step, and how many of its steps are timed at once."""
    training = workload.start(backend, batch_size)
    training.step()
    return training, ceil(BLOCK / wall_clock(backend, training.step, 1))


def _peaks(setup: Setup, dtype: str) -> dict[str, float]:
    """What bounds every layer on this setup: the speed of products and of copies."""
    with setup.active() as backend:
        return {"product_flops": _product_speed(backend, dtype), "copy_bytes": _copy_speed(backend)}


def _product_speed(backend: Backend, dtype: str) -> float:
    """Operations a second of a matrix product that is large enough to keep the device busy."""
    random = np.random.default_rng(0)
    for size in (512, 1024, 2048, 4096, 8192):
        a, b, out = (backend.zeros(size * size, dtype).reshape(size, size) for _ in range(3))
        a += backend.asarray(random.uniform(-1, 1, size), dtype)  # with zeros a GPU would clock higher
        b += backend.asarray(random.uniform(-1, 1, size), dtype)
        seconds = _shortest(backend, partial(backend.matmul, a, b, out=out))
        if seconds > LONG_ENOUGH:
            break
    return 2 * size**3 / seconds


def _copy_speed(backend: Backend) -> float:
    """Bytes a second, read and written, of a copy that takes long enough to show it."""
    for nbytes in (1 << 26, 1 << 27, 1 << 28, 1 << 29):
        source, target = (backend.zeros(nbytes // 4, "float32") for _ in range(2))
        source += 1  # before they are written, an operating system has no memory behind zeros
        target += 1
        seconds = _shortest(backend, partial(backend.xp.copyto, target, source))
        if seconds > LONG_ENOUGH:
            break
    return 2 * nbytes / seconds


def _shortest(backend: Backend, work: Callable[[], Any]) -> float:
    work()
    return min(wall_clock(backend, work, 1) for _ in range(7))


def wall_clock(backend: Backend, work: Callable[[], Any], times: int) -> float:
    """Seconds of one of so many calls of ``work``, from an idle device to an idle device."""
    backend.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    backend.synchronize()
    return (time.perf_counter() - start) / times
