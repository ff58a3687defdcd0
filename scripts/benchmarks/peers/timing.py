"""The measurements: in every setting the contenders take turns, round by round."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from backends import Backend
from cnn.inspection.timing import Spread
from peers.agreement import Job, Proof
from peers.contenders import CONTENDERS, PYTORCH
from peers.task import Setting, Task

WARM_UP = 3  # steps after the first
PAUSE = 0.1  # seconds: idle threads of another library go on spinning for a while after their last product
BLOCK = 0.05  # seconds: as many steps are timed at once as this takes
PATIENCE = 5.0  # seconds that a contender may use for its turns; five it has in any case
LEAST_TURNS = 5
LONG = 0.5  # seconds: a call that takes longer is neither warmed up nor woken up by others before it
PRODUCT_SIZE = 2048
CUDA_PRODUCT_SIZE = 8192
CUDA_COPY_BYTES = 256 << 20  # several times what a GPU's cache holds


@dataclass(frozen=True)
class Call:
    """What is timed, and what waits until the device is done."""

    run: Callable[[], object]
    synchronize: Callable[[], object]

    def seconds(self, times: int) -> float:
        """Of one of so many, between which nothing waits for the device."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            self.run()
        self.synchronize()
        return (time.perf_counter() - start) / times


@dataclass(frozen=True)
class Figure:
    """What a contender takes for a phase of a setting."""

    network: str
    batch_size: int
    threads: int | None  # None on a GPU
    phase: str
    peer: str
    seconds: Spread  # of a step or an inference
    turns: int
    images_per_second: float
    pytorch: str | None  # the mode of PyTorch that takes the least time here
    times_pytorch: Spread | None  # over the rounds: the seconds of that mode over its own
    product_flops: float  # operations a second of a large matrix product
    product_share: float  # what a step or inference reaches of it
    copy_bytes: float  # bytes a second, read and written, of a copy: on the CPU as large as the parameters
    copy_share: float | None  # what a step or inference on one image reaches of it
    first_seconds: float  # with everything that happens only once, such as compiling


def measure(jobs: Sequence[Job], proof: Proof, rounds: int, say: Callable[[str], None]) -> list[Figure]:
    """The figures of all that was proved; the settings are of the same device, threads and dtype."""
    first = jobs[0].setting
    size = PRODUCT_SIZE if first.device == "cpu" else CUDA_PRODUCT_SIZE
    product_flops = measure_product(first.backend("portable"), size, first.dtype)
    figures: list[Figure] = []
    for setting, phase, names in ((job.setting, phase, job.names) for job in jobs for phase in job.phases):
        say(f"timing {setting}, {phase}")
        chosen = [name for name in names if (setting, name) in proof.first_seconds]
        taken = take_turns(start_all(setting, phase, chosen), rounds)
        figures += make_figures(setting, phase, taken, proof, product_flops)
    return figures


def make_figures(
    setting: Setting, phase: str, taken: Mapping[str, Sequence[float]], proof: Proof, product_flops: float
) -> Iterator[Figure]:
    """One for each contender, from the seconds of its turns."""
    network, batch_size = setting.network, setting.batch_size
    copied = sum(network.parameter_bytes()) if setting.device == "cpu" else CUDA_COPY_BYTES
    copy_bytes = measure_copy(setting.backend("portable"), copied)
    product_seconds = network.flops(phase, batch_size) / product_flops
    copy_seconds = network.moved_bytes(phase) / copy_bytes
    pytorch = fastest([name for name in PYTORCH if name in taken], taken)
    for name, seconds in taken.items():
        spread = Spread.of(seconds)
        yield Figure(
            network=network.name,
            batch_size=batch_size,
            threads=setting.threads,
            phase=phase,
            peer=name,
            seconds=spread,
            turns=len(seconds),
            images_per_second=batch_size / spread.median,
            pytorch=pytorch,
            times_pytorch=times_as_fast(seconds, taken[pytorch]) if pytorch else None,
            product_flops=product_flops,
            product_share=product_seconds / spread.median,
            copy_bytes=copy_bytes,
            copy_share=copy_seconds / spread.median if batch_size == 1 else None,
            first_seconds=proof.first_seconds[setting, name][phase],
        )


def start_all(setting: Setting, phase: str, names: Iterable[str]) -> dict[str, Call]:
    """What each does in its turn."""
    task = Task(setting)
    peers = {name: CONTENDERS[name].load(setting.device)(task) for name in names}
    return {
        name: Call(peer.step if phase == "training" else peer.infer, peer.synchronize)
        for name, peer in peers.items()
    }


def take_turns(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, turn by turn, ``rounds`` times or until its patience is used up."""
    lasting = {name: warmed_up(call) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            times = max(1, ceil(BLOCK / lasting[name]))
            if turn < LEAST_TURNS or sum(taken[name]) * times < PATIENCE:
                time.sleep(PAUSE)
                if lasting[name] < LONG:
                    call.run()
                taken[name].append(call.seconds(times))
    return taken


def warmed_up(call: Call) -> float:
    """Seconds of a call, after a few of them unless they take long."""
    call.run()
    seconds = call.seconds(1)
    if seconds > LONG:
        return seconds
    for _ in range(WARM_UP - 1):
        call.run()
    return call.seconds(1)


def fastest(names: Iterable[str], taken: Mapping[str, Sequence[float]]) -> str | None:
    """The one with the lowest median; None without names."""
    return min(names, key=lambda name: Spread.of(taken[name]).median, default=None)


def times_as_fast(seconds: Sequence[float], baseline: Sequence[float]) -> Spread:
    """The ratios in the rounds that both took part in."""
    return Spread.of([theirs / own for own, theirs in zip(seconds, baseline, strict=False)])


def measure_product(backend: Backend, size: int, dtype: str) -> float:
    """Operations a second of a large product in ``dtype``: what bounds every step."""
    random = np.random.default_rng(0)
    a, b = (backend.asarray(matrix, dtype) for matrix in random.random((2, size, size), dtype=np.float32))
    out = backend.xp.empty_like(a)
    return 2 * size**3 / quickest(Call(lambda: backend.matmul(a, b, out), backend.synchronize), times=1)


def measure_copy(backend: Backend, nbytes: int) -> float:
    """Bytes a second, read and written, of a copy of so many: what bounds a step on one image."""
    source = backend.asarray(np.ones(nbytes // 4, dtype=np.float32))
    target = backend.xp.empty_like(source)
    copy = Call(lambda: backend.xp.copyto(target, source), backend.synchronize)
    return 2 * nbytes / quickest(copy, times=20)


def quickest(call: Call, times: int) -> float:
    """Seconds of one call, at its best."""
    call.run()
    return min(call.seconds(times) for _ in range(7))
