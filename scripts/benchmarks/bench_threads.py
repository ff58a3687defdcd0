"""Threads and the start of the compiled kernels: python scripts/benchmarks/bench_threads.py [--help].

Four measurements with LeNet-5 at batch 128 in float32: what a launch of an empty kernel costs, a training
step on one thread and on several, the same step while another process keeps one core busy, and the first step
of a process whose cache of kernels is empty. All but the processor times need a quiet machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from shared.options import Parser, whole

import backends
import cnn
from backends.cpu.threads import available_cores, limit_threads
from cnn.inspection.timing import Spread
from cnn.training.run import Run

BATCH, STEPS = 128, 40
FIRST_STEP = "--first-step"  # makes this script the process whose first step is measured


class Clock(cnn.Callback):
    """The seconds of each step but the first two, which record the step."""

    def on_start(self, run: Run) -> None:
        self.taken: list[float] = []
        self._last = time.perf_counter()

    def on_step(self, run: Run) -> None:
        now = time.perf_counter()
        self.taken.append(now - self._last)
        self._last = now

    @property
    def steps(self) -> list[float]:
        return self.taken[2:]


def main() -> None:
    """Measure everything, or be the process that is measured."""
    if FIRST_STEP in sys.argv:
        train(make_network(), batches=1)
        return
    options = make_parser().parse_args()
    limit_threads(options.threads)
    device = backends.get("cpu", kernels="compiled")
    print(f"{device.describe()['processor']}, {options.threads} threads, LeNet-5, batch {BATCH}, float32\n")
    show_launches(options.threads)
    show_steps(options.threads, options.rounds)
    show_first_steps()


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    cores = available_cores()
    parser = Parser(__doc__)
    parser.add_argument(
        "--threads", type=whole(cores), default=cores, help=f"threads of the kernels (default: {cores})"
    )
    parser.add_argument("--rounds", type=whole(), default=9, help="how often all take turns (default: 9)")
    return parser


def make_network() -> cnn.Sequential:
    """LeNet-5 with the compiled kernels."""
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=backends.get("cpu", kernels="compiled"), seed=0)
    return network


def train(network: cnn.Sequential, batches: int) -> list[float]:
    """The seconds of the steps of an epoch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH * batches, 1, 28, 28), dtype=np.uint8)
    clock = Clock()
    cnn.fit(
        network, cnn.data.Dataset(images, rng.integers(0, 10, len(images))), epochs=1, batch_size=BATCH,
        callbacks=[clock],
    )  # fmt: skip
    return clock.steps


def show_launches(threads: int, launches: int = 5000) -> None:
    """A kernel that does nothing, in one part and in as many as there are threads."""
    from backends.cpu.compiled import jit
    from backends.cpu.compiled.pool import launch, pool

    address = jit.Kernel(jit._nothing).address(np.dtype(np.float32))
    pool.start(threads)
    for parts in dict.fromkeys((1, threads)):
        taken, before = [], time.process_time()
        for _ in range(launches):
            start = time.perf_counter()
            launch(address, 0, 0, parts, pool.address)
            taken.append((time.perf_counter() - start) * 1e6)
        used = (time.process_time() - before) / launches * 1e6
        quartile = np.percentile(taken, 25)
        print(f"launch, {parts} parts: least {min(taken):.2f}, lower quartile {quartile:.2f} µs; "
              f"{used:.2f} µs of processor time")  # fmt: skip
    print()


def show_steps(threads: int, rounds: int) -> None:
    """A step on one thread and on all, alone and with one core taken, in turns."""
    network = make_network()
    names = ("one thread", f"{threads} threads", f"{threads} threads, one core taken")
    medians: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, count, taken in zip(names, (1, threads, threads), (False, False, True), strict=True):
            with limit_threads(count), one_core_taken(taken):
                medians[name].append(float(np.median(train(network, STEPS))) * 1e3)
    spreads = {name: Spread.of(values) for name, values in medians.items()}
    for name, spread in spreads.items():
        print(f"step, {name}: {spread.median:.2f} ms ({spread.low:.2f} to {spread.high:.2f})")
    one, several, busy = (spread.median for spread in spreads.values())
    print(f"{threads} threads are {one / several:.2f} times as fast as one (expected: {0.8 * threads:.1f})")
    print(f"with one core taken a step takes {busy / several:.2f} times as long (expected: at most 2.5)\n")


@contextmanager
def one_core_taken(is_taken: bool) -> Iterator[None]:
    """Another process that computes all the time, if ``is_taken``."""
    if not is_taken:
        yield
        return
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        busy.kill()
        busy.wait()


def show_first_steps() -> None:
    """A process from its start to the end of its first step, with an empty cache and with what that left."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("empty cache", "kernels in the cache"):
            start, before = time.perf_counter(), children_seconds()
            command = [sys.executable, str(Path(__file__).resolve()), FIRST_STEP]
            subprocess.run(command, env=os.environ | {"NUMBA_CACHE_DIR": folder}, check=True)
            seconds, used = time.perf_counter() - start, children_seconds() - before
            print(f"first step, {what}: {seconds:.1f} s from the start, {used:.1f} s of processor time")


def children_seconds() -> float:
    """The processor time of the processes that this one has started, and of theirs."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    main()
