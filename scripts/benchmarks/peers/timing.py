"""The measurements: in every setting the contenders take turns, round by round."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

import numpy as np

from backends import Backend
from cnn.inspection.timing import Spread
from peers.agreement import Job, Proof
from peers.contenders import BASELINE, CONTENDERS
from peers.task import Setting, Task

WARM_UP = 3  # steps
PAUSE = 0.1  # seconds: idle threads of another library go on spinning for a while after their last product
BLOCK = 0.05  # seconds: as many steps are timed at once as this takes
PATIENCE = 5.0  # seconds that a contender may use for its turns; three it has in any case
LEAST_TURNS = 3
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
    times_pytorch: float | None  # median over the rounds of PyTorch's seconds over its own
    product_flops: float  # operations a second of a large matrix product
    product_share: float  # what a step or inference reaches of it
    copy_bytes: float  # bytes a second, read and written, of a copy: on the CPU as large as the parameters
    copy_share: float | None  # what a step or inference on one image reaches of it
    first_seconds: float  # with everything that happens only once, such as compiling


def measure(
    jobs: Sequence[Job], phases: Iterable[str], proof: Proof, rounds: int, say: Callable[[str], None]
) -> list[Figure]:
    """The figures of all that was proved; the settings are of the same device and threads."""
    first = jobs[0].setting
    size = PRODUCT_SIZE if first.device == "cpu" else CUDA_PRODUCT_SIZE
    product_flops = measure_product(first.backend("portable"), size)
    figures: list[Figure] = []
    for setting, phase, names in ((job.setting, phase, job.names) for job in jobs for phase in phases):
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
            times_pytorch=times_as_fast(seconds, taken.get(BASELINE)),
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
    times = {name: calls_a_turn(call) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if turn < LEAST_TURNS or sum(taken[name]) * times[name] < PATIENCE:
                time.sleep(PAUSE)
                call.run()
                taken[name].append(call.seconds(times[name]))
    return taken


def calls_a_turn(call: Call) -> int:
    """How many calls are timed at once, found after a few to warm up."""
    for _ in range(WARM_UP):
        call.run()
    return max(1, ceil(BLOCK / call.seconds(1)))


def times_as_fast(seconds: Sequence[float], baseline: Sequence[float] | None) -> float | None:
    """The median of the ratios in the rounds that both took part in; None without the baseline."""
    if baseline is None:
        return None
    return median(theirs / own for own, theirs in zip(seconds, baseline, strict=False))


def measure_product(backend: Backend, size: int) -> float:
    """Operations a second of a large product in float32: what bounds every step."""
    random = np.random.default_rng(0)
    a, b = (backend.asarray(matrix) for matrix in random.random((2, size, size), dtype=np.float32))
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
