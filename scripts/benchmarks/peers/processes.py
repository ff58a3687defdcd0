"""Where it runs: a process for each number of threads, and one for each training whose memory is measured."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

from shared.progress import say

import backends
from peers import agreement, memory, timing
from peers.agreement import Job, Proof
from peers.task import Setting
from peers.timing import Figure


class Processes(ExitStack):
    """One process for each number of threads, which some libraries take only when they start."""

    def __init__(self, threads: Iterable[int | None]) -> None:
        super().__init__()
        self._pools = {n: self.enter_context(start(n)) for n in sorted(set(threads), key=lambda n: n or 0)}
        self._proofs: dict[int | None, Proof] = {}

    def prove(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Let all compute the same in every job, or DisagreementError; -> who is absent, by name, and why."""
        for threads, pool in self._pools.items():
            self._proofs[threads] = pool.submit(agreement.prove, with_threads(jobs, threads), say).result()
        say("all compute the same")
        return {name: reason for proof in self._proofs.values() for name, reason in proof.absent.items()}

    def measure(self, jobs: Sequence[Job], rounds: int) -> list[Figure]:
        """The figures of jobs that are proved."""
        figures: list[Figure] = []
        for threads, pool in self._pools.items():
            if mine := with_threads(jobs, threads):
                proof = self._proofs[threads]
                figures += pool.submit(timing.measure, mine, proof, rounds, say).result()
        return figures


def with_threads(jobs: Sequence[Job], threads: int | None) -> list[Job]:
    """Those for so many."""
    return [job for job in jobs if job.setting.threads == threads]


def start(threads: int | None) -> ProcessPoolExecutor:
    """A fresh process, whose linear algebra has so many threads, or as many as it takes."""
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=limit_threads, initargs=(threads,)
    )


def limit_threads(threads: int | None) -> None:
    """Let ours and NumPy use so many from now on; the other libraries take the number when they start."""
    backends.get("cpu", kernels="portable", threads=threads)


def measure_growth(setting: Setting, name: str) -> int | None:
    """Bytes that a process of its own grows by in a training; None where the contender is absent."""
    say(f"memory of {setting}, {name}")
    with start(setting.threads) as pool:
        return pool.submit(memory.growth, setting, name).result()
