"""The launches of a training step, and its time recorded and call by call."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

from peers.networks import NETWORKS
from peers.ours import Ours
from peers.task import Setting, Task

import backends
from backends import Backend
from cnn.comparison.measure import wall_clock
from cnn.inspection.timing import Spread
from cnn.support.errors import DeviceUnavailable
from measurements.launches import recorded_launches
from measurements.plan import SIZES, SMALL
from measurements.record import Record

BLOCK = 0.05  # seconds: as many steps are timed together as this takes
ROUNDS = 9


def measure(device: str, record: Record) -> None:
    """Note a row for each network; the small ones, which launches slow down, have one with plain CuPy too."""
    rows: list[dict[str, Any]] = []
    chosen = [(name, "compiled") for name in SIZES] + [(name, "portable") for name in SMALL]
    for network, kernels in chosen:
        try:
            backends.get(device, kernels)
        except DeviceUnavailable as error:
            record.note(absent={kernels: str(error)})
            continue
        print(f"{network}, {kernels}", flush=True)
        setting = Setting(NETWORKS[network], SIZES[network], None, device)
        rows.append(measure_step(setting, kernels))
        record.note(rows=rows)


def measure_step(
    setting: Setting,
    kernels: str,
    rounds: int = ROUNDS,
    count: Callable[[Backend], int | None] = recorded_launches,
) -> dict[str, Any]:
    """A training step of the setting in float32: its launches and its times in seconds."""
    made: list[Ours] = []
    backend = setting.backend(kernels)
    task = Task(setting)
    launches: list[int | None] = []

    def first() -> None:
        made.append(Ours(task, kernels))
        made[0].training_step.run()

    first_seconds = wall_clock(backend, first, 1)
    step = made[0].training_step

    def counted() -> None:
        step.run()
        launches.append(count(backend))

    recorded = backend.graph(step.run, list(step.state.values()))
    backend.graph(counted, list(step.state.values()))()
    record_seconds = wall_clock(backend, recorded, 1)
    plain_seconds, recorded_seconds = [], []
    for _ in range(rounds):
        plain_seconds.append(timed(backend, step.run))
        recorded_seconds.append(timed(backend, recorded))
    with backend.timer() as timer:
        recorded()
    return {
        "network": setting.network.name,
        "batch_size": setting.batch_size,
        "kernels": backend.kernels.name,
        "launches": next((number for number in reversed(launches) if number is not None), None),
        "not_recorded": getattr(recorded, "failure", None),
        "first_seconds": first_seconds,
        "record_seconds": record_seconds,
        "plain": spread(plain_seconds),
        "recorded": spread(recorded_seconds),
        "device_seconds": timer.seconds,
    }


def timed(backend: Backend, work: Callable[[], None]) -> float:
    """Seconds of a step, in a block of them without a wait between them."""
    once = wall_clock(backend, work, 1)
    return wall_clock(backend, work, ceil(BLOCK / once)) if once < BLOCK else once


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the quartiles, as plain data."""
    return asdict(Spread.of(seconds))
