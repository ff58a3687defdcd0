"""The measurements: setups take turns, so that what disturbs the machine disturbs them all."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any

from backends import Backend
from cnn.arguments import whole
from cnn.comparison.agreement import STEPS, TOLERANCE, agreement, require_same, trace
from cnn.comparison.results import Column, Comparison, SweepPoint
from cnn.comparison.setups import Setup
from cnn.comparison.workload import Training, Workload, make_workload, work
from cnn.runs import environment
from cnn.timing import LayerWatch, Spread

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
BLOCK = 0.02  # seconds: as many steps are timed at once as this takes
PATIENCE = 5.0  # seconds that a setup may use for its turns; three it has in any case
SLOWEST = 0.2  # seconds: a sweep ends at the batch size where a step takes longer
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
    say : callable
        Is told what happens next.

    Raises
    ------
    DisagreementError
        Where two setups do not compute the same; nothing is timed then.
    """
    whole("rounds", rounds)
    workload = make_workload(model, batch_size, dtype)
    first = setups[0]
    say(f"{STEPS} steps on each, to see that all compute the same")
    traces = [trace(workload, setup) for setup in setups]
    agreements = [agreement(traces[0], other) for other in traces]
    for setup, found in zip(setups[1:], agreements[1:], strict=True):
        require_same(workload, first, setup, found)
    say("a large product and a large copy on each")
    peaks = [_peaks(setup, dtype) for setup in setups]
    say(f"up to {rounds} rounds of steps, in turns")
    measured = [_Measurements(setup, workload) for setup in setups]
    _take_turns(measured, rounds)
    say(f"steps at batch sizes {BATCH_SIZES[0]} to {BATCH_SIZES[-1]}")
    sweeps = _sweep(setups, workload)
    columns = [
        Column(
            name=setup.name,
            device=setup.backend.describe(),
            losses=traced.losses,
            agreement=None if setup is first else found,
            layers=one.watch.read(),
            step=Spread.of(one.steps),
            first_step=traced.first_step,
            move_batch=Spread.of(one.moves),
            launch=Spread.of(one.launches),
            product_flops=product_flops,
            copy_bytes=copy_bytes,
            sweep=sweep,
        )
        for setup, traced, found, one, (product_flops, copy_bytes), sweep in zip(
            setups, traces, agreements, measured, peaks, sweeps, strict=True
        )
    ]
    layers = work(measured[0].training.network, batch_size)
    machine = environment()
    return Comparison(model, batch_size, dtype, STEPS, TOLERANCE[dtype], machine, layers, columns)


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
            self.training: Training = self.workload.start(backend)
            self.watch = LayerWatch(self.training.network)
            self.training.step()
            self._block = ceil(BLOCK / wall_clock(backend, self.training.step, 1))
            self._batch = self.workload.batches(self.workload.batch_size, 1).images
            self._one = backend.zeros(1, self.workload.dtype)

    def take_turn(self) -> None:
        """Measure everything once; where steps are short, after one that wakes the device up."""
        with self.setup.active() as backend:
            if self._block > 1:
                self.training.step()
            self.steps.append(wall_clock(backend, self.training.step, self._block))
            with self.watch.step():
                self.training.step()
            self.moves.append(wall_clock(backend, lambda: backend.asarray(self._batch), LAUNCHES))
            add = backend.xp.add
            self.launches.append(wall_clock(backend, lambda: add(self._one, 1, out=self._one), LAUNCHES))


def _take_turns(measured: Sequence[_Measurements], rounds: int) -> None:
    """Let each have its turn, ``rounds`` times or until its patience is used up."""
    used = [0.0] * len(measured)
    for turn in range(rounds):
        for index, one in enumerate(measured):
            if turn < 3 or used[index] < PATIENCE:
                start = time.perf_counter()
                one.take_turn()
                used[index] += time.perf_counter() - start


def _sweep(setups: Sequence[Setup], workload: Workload) -> list[list[SweepPoint]]:
    """A training step at each batch size, for each setup as far as its steps stay quick."""
    points: list[list[SweepPoint]] = [[] for _ in setups]
    quick = list(range(len(setups)))
    for batch_size in BATCH_SIZES:
        trainings = {index: _start(setups[index], workload, batch_size) for index in quick}
        seconds: dict[int, list[float]] = {index: [] for index in quick}
        for _ in range(SWEEP_TURNS):
            for index, (training, block) in trainings.items():
                with setups[index].active() as backend:
                    seconds[index].append(wall_clock(backend, training.step, block))
        for index in quick:
            points[index].append(SweepPoint(batch_size, Spread.of(seconds[index])))
        quick = [index for index in quick if points[index][-1].step.median < SLOWEST]
    return points


def _start(setup: Setup, workload: Workload, batch_size: int) -> tuple[Training, int]:
    """A training that has warmed up, and how many of its steps make a block."""
    with setup.active() as backend:
        training = workload.start(backend, batch_size)
        training.step()
        return training, ceil(BLOCK / wall_clock(backend, training.step, 1))


def _peaks(setup: Setup, dtype: str) -> tuple[float, float]:
    """What bounds every layer on this setup: the speed of products and of copies."""
    with setup.active() as backend:
        return _product_speed(backend, dtype), _copy_speed(backend)


def _product_speed(backend: Backend, dtype: str) -> float:
    """Operations a second of a matrix product that is large enough to keep the device busy."""
    for size in (512, 1024, 2048, 4096, 8192):
        a, b, out = (backend.zeros(size * size, dtype).reshape(size, size) for _ in range(3))
        a += 1
        b += 1
        seconds = _shortest(backend, partial(backend.matmul, a, b, out=out))
        if seconds > LONG_ENOUGH:
            break
    return 2 * size**3 / seconds


def _copy_speed(backend: Backend) -> float:
    """Bytes a second, read and written, of a copy that is larger than any cache."""
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
