"""Measurements. Setups are timed alternately, so that other load affects all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any

import numpy as np

from backends import Backend
from cnn.comparison.agreement import proof_batch_size, prove
from cnn.comparison.results import Column, Comparison, SweepPoint
from cnn.comparison.setups import Setup
from cnn.comparison.workload import Training, Workload, make_workload, work
from cnn.inspection.timing import LayerWatch, Spread
from cnn.support.arguments import whole
from cnn.support.environment import environment

BATCH_SIZES = (1, 8, 64, 512)
ALL_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
ROUNDS = 9
BLOCK = 0.02  # seconds of steps that are timed together
PATIENCE = 5.0  # seconds after which a setup takes no more turns; it gets at least three
SLOW = 1.0  # seconds: a setup whose step takes longer than this is timed at small batch sizes only
PROBE = 4  # images of the steps that show which setups are slow
SLOWEST = 0.5  # seconds: a sweep ends before the first batch size whose step would take longer
PAUSE = 0.25  # seconds at most between two setups, if idle threads of the first one keep spinning for a while
GLANCE = 0.02  # seconds: threads that are idle for so long have gone to sleep
SWEEP_TURNS = 3
LAUNCHES = 100
LONG_ENOUGH = 5e-3  # seconds: a product or a copy that shows the device at full speed


def compare(
    setups: Sequence[Setup],
    model: str = "lenet5",
    batch_size: int = 128,
    dtype: str = "float32",
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[str], None] = lambda text: None,
    winograd: bool = True,
    sweep: bool = False,
) -> Comparison:
    """Check that ``setups`` compute the same training steps, then time them alternately.

    Parameters
    ----------
    setups : sequence of Setup
        The others are compared with the first.
    model, batch_size, dtype
        The network to train on MNIST's images, the batch size and the dtype.
    rounds : int
        The number of turns of each setup; a slow one takes fewer, but at least three.
    say, show : callable
        Called with the phase that begins, and with its progress.
    winograd : bool
        As in :meth:`cnn.Sequential.build`.
    sweep : bool
        Whether steps are timed at all batch sizes from 1 to 1,024, or at four of them.

    Raises
    ------
    DisagreementError
        If two setups do not compute the same; then nothing is timed.
    """
    whole("rounds", rounds)
    workload = make_workload(model, batch_size, dtype, winograd)
    say("running a first step on each setup")
    slow = _slow(setups, workload, show)
    timed = [setup for setup in setups if setup not in slow]
    firsts = {setup: _first_step(setup, workload) for setup in timed}
    say("checking that all setups compute the same")
    losses, agreements = prove(workload, setups, slow, show)
    say("timing a large product and a large copy on each setup")
    peaks = [_peaks(setup, dtype, show) for setup in setups]
    say(f"timing {rounds} rounds of steps")
    measured = [_Measurements(setup, workload, timed=setup in timed) for setup in setups]
    _take_turns(measured, rounds, show)
    sizes = ALL_BATCH_SIZES if sweep else BATCH_SIZES
    say(f"timing steps at batch sizes from {sizes[0]} to {sizes[-1]}")
    sweeps = _sweep(setups, workload, sizes, show)
    fields = [
        {"losses": loss, "agreement": found, "first_step": firsts.get(setup), **peak, "sweep": points}
        for setup, loss, found, peak, points in zip(setups, losses, agreements, peaks, sweeps, strict=True)
    ]
    columns = [one.column(**others) for one, others in zip(measured, fields, strict=True)]
    layers = work(measured[0].training.network, batch_size)
    proof = proof_batch_size(batch_size)
    return Comparison(model, batch_size, dtype, len(losses[0]), proof, environment(), layers, columns)


def _slow(setups: Sequence[Setup], workload: Workload, show: Callable[[str], None]) -> list[Setup]:
    """The setups whose step would take longer than SLOW, by the time of a step with a small batch.

    The first setup is not among them, because the others are compared with it. This runs the first steps
    of the process on each setup, which also pay for what the setups share.
    """
    batch_size = min(PROBE, workload.batch_size)
    allowed = SLOW * batch_size / workload.batch_size
    slow = []
    for setup in setups:
        show(f"a first step on {setup.name}")
        with setup.active() as backend:
            training = workload.start(backend, batch_size)
            training.step()
            # another program may be in the way of some of these steps
            always = all(wall_clock(backend, training.step, 1) > allowed for _ in range(3))
        if always and setup is not setups[0]:
            slow.append(setup)
    return slow


def _first_step(setup: Setup, workload: Workload) -> float:
    """Seconds for building a network and its first step."""
    with setup.active() as backend:
        return wall_clock(backend, lambda: workload.start(backend).step(), 1)


@dataclass
class _Measurements:
    """A setup and its measurements so far, in seconds; its steps are not ``timed`` if it is slow."""

    setup: Setup
    workload: Workload
    timed: bool
    steps: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    launches: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.setup.active() as backend:
            if self.timed:
                self.training, self._steps_a_block = _warmed_up(self.workload, backend)
            else:
                self.training = self.workload.start(backend, 1)
            self.watch = LayerWatch(self.training.network)
            self._host_batch = self.workload.batches(self.workload.batch_size, 1).images
            self._number = backend.zeros(1, self.workload.dtype)

    def take_turn(self) -> None:
        """Measure everything once."""
        with self.setup.active() as backend:
            if self.timed:
                self.steps.append(_step_seconds(backend, self.training, self._steps_a_block))
                with self.watch.step():
                    self.training.plain_step()
            if self.setup.has_own_memory:
                self.moves.append(wall_clock(backend, partial(backend.asarray, self._host_batch), LAUNCHES))
            add = backend.xp.add
            self.launches.append(
                wall_clock(backend, lambda: add(self._number, 1, out=self._number), LAUNCHES)
            )

    def column(self, **others: Any) -> Column:
        """The measurements as a column, with the ``others`` of its fields."""
        with self.setup.active() as backend:
            return Column(
                name=self.setup.name,
                device=backend.describe(),
                layers=self.watch.read(),
                step=Spread.of(self.steps) if self.steps else None,
                move_batch=Spread.of(self.moves) if self.moves else None,
                launch=Spread.of(self.launches),
                **others,
            )


class _Turns:
    """Lets setups work in turns, with a pause in which the threads of a BLAS library go to sleep."""

    def __init__(self) -> None:
        self._before: Setup | None = None

    def begin(self, setup: Setup) -> None:
        """Wait until ``setup`` can be timed."""
        is_spinning = self._before is not None and self._before.leaves_threads_spinning
        if is_spinning and not setup.leaves_threads_spinning:  # or else it works with these threads
            _wait_for_sleep()
        self._before = setup


def _wait_for_sleep() -> None:
    """Wait until no thread of this process is running, but not longer than PAUSE."""
    end = time.perf_counter() + PAUSE
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(GLANCE)
        if time.process_time() - before < GLANCE / 10:
            return


def _take_turns(measured: Sequence[_Measurements], rounds: int, show: Callable[[str], None]) -> None:
    """Let each setup take ``rounds`` turns, or fewer if it has used up PATIENCE."""
    used = [0.0] * len(measured)
    turns = _Turns()
    for turn in range(rounds):
        show(f"round {turn + 1} of {rounds}")
        for index, one in enumerate(measured):
            if turn < 3 or used[index] < PATIENCE:
                turns.begin(one.setup)
                start = time.perf_counter()
                one.take_turn()
                used[index] += time.perf_counter() - start


def _sweep(
    setups: Sequence[Setup], workload: Workload, sizes: Sequence[int], show: Callable[[str], None]
) -> list[list[SweepPoint]]:
    """Time a training step of each setup at each batch size, as long as it is expected to take SLOWEST."""
    points: list[list[SweepPoint]] = [[] for _ in setups]
    turns = _Turns()
    for batch_size in sizes:
        trainings = {}
        for index, setup in enumerate(setups):
            if _expected_seconds(points[index], batch_size) <= SLOWEST:
                show(f"batch size {batch_size} on {setup.name}")
                with setup.active() as backend:
                    trainings[index] = _warmed_up(workload, backend, batch_size)
        seconds: dict[int, list[float]] = {index: [] for index in trainings}
        for _ in range(SWEEP_TURNS):
            for index, (training, block) in trainings.items():
                turns.begin(setups[index])
                with setups[index].active() as backend:
                    seconds[index].append(_step_seconds(backend, training, block))
        for index in trainings:
            points[index].append(SweepPoint(batch_size, Spread.of(seconds[index])))
    return points


def _expected_seconds(points: Sequence[SweepPoint], batch_size: int) -> float:
    """Seconds of a step, by that of the batch size before, of which there is always one but for the first."""
    return points[-1].step.median * batch_size / points[-1].batch_size if points else 0.0


def _warmed_up(workload: Workload, backend: Backend, batch_size: int | None = None) -> tuple[Training, int]:
    """A warmed-up training, and the number of steps to time together."""
    training = workload.start(backend, batch_size)
    training.step()
    return training, ceil(BLOCK / wall_clock(backend, training.step, 1))


def _step_seconds(backend: Backend, training: Training, block: int) -> float:
    """Seconds of a step, over a block of them; short steps are preceded by one that wakes up the threads."""
    if block > 1:
        training.step()
    return wall_clock(backend, training.step, block)


def _peaks(setup: Setup, dtype: str, show: Callable[[str], None]) -> dict[str, float]:
    """The speeds of a large product and a large copy on this setup, which limit every layer."""
    show(f"a large product and a large copy on {setup.name}")
    with setup.active() as backend:
        return {"product_flops": _product_speed(backend, dtype), "copy_bytes": _copy_speed(backend)}


def _product_speed(backend: Backend, dtype: str) -> float:
    """Operations per second of a matrix product that is large enough to keep the device busy."""
    random = np.random.default_rng(0)
    for size in (512, 1024, 2048, 4096, 8192):
        a, b, out = (backend.zeros(size * size, dtype).reshape(size, size) for _ in range(3))
        a += backend.asarray(
            random.uniform(-1, 1, size), dtype
        )  # a GPU runs at a higher clock rate with zeros
        b += backend.asarray(random.uniform(-1, 1, size), dtype)
        seconds = _shortest(backend, partial(backend.matmul, a, b, out=out))
        if seconds > LONG_ENOUGH:
            break
    return 2 * size**3 / seconds


def _copy_speed(backend: Backend) -> float:
    """Bytes per second, read and written, of a copy that is large enough to time."""
    for nbytes in (1 << 26, 1 << 27, 1 << 28, 1 << 29):
        source, target = (backend.zeros(nbytes // 4, "float32") for _ in range(2))
        source += 1  # operating systems allocate memory only when it is written
        target += 1
        seconds = _shortest(backend, partial(backend.xp.copyto, target, source))
        if seconds > LONG_ENOUGH:
            break
    return 2 * nbytes / seconds


def _shortest(backend: Backend, work: Callable[[], Any]) -> float:
    work()
    return min(wall_clock(backend, work, 1) for _ in range(7))


def wall_clock(backend: Backend, work: Callable[[], Any], times: int) -> float:
    """Seconds per call of ``work``, over ``times`` calls; the device is idle before and after."""
    backend.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    backend.synchronize()
    return (time.perf_counter() - start) / times
