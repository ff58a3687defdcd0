"""Compares numbers of processes: checks that all give the same weights, then times their training steps."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from statistics import mean
from typing import NoReturn

import backends
from backends.cpu import threads
from cnn.comparison import worker
from cnn.comparison.measure import ROUNDS
from cnn.comparison.scaling import Column, Scaling, sent_bytes
from cnn.comparison.worker import Task, Trained
from cnn.comparison.workload import make_workload
from cnn.inspection.timing import Spread
from cnn.support.arguments import whole
from cnn.support.environment import environment
from cnn.support.errors import ArgumentError, DisagreementError, TrainingError
from cnn.training.distributed.mpiexec import Mpiexec

STEPS = 10  # after which the weights are compared
BLOCK = 0.5  # seconds of steps that are timed together
FEWEST, MOST = 10, 1000  # steps that are timed together
PATIENCE = 60.0  # seconds after which a number of processes takes no more turns; it gets at least three
ROOT = Path(__file__).resolve().parents[2]  # the packages are here, installed or not


@dataclass(frozen=True)
class Processes:
    """Some processes that train together on this machine, each with its share of the cores."""

    count: int
    mpiexec: Mpiexec

    @property
    def name(self) -> str:
        """The name, for example "2 processes"."""
        return "1 process" if self.count == 1 else f"{self.count} processes"

    def threads(self, cores: int) -> int:
        """The threads of each, at least one."""
        return max(1, cores // self.count)

    def train(self, task: Task) -> Trained:
        """Start the processes and let them train; TrainingError or ArgumentError if they fail."""
        with tempfile.TemporaryDirectory(prefix="cnn-") as folder:
            task = replace(task, file=str(Path(folder) / "trained.json"))
            program = [sys.executable, "-m", worker.__name__, json.dumps(asdict(task))]
            command = program if self.count == 1 else self.mpiexec.command(self.count, program)
            paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
            self._run(command, {**os.environ, "PYTHONPATH": paths})
            return Trained(**json.loads(Path(task.file).read_text()))

    def _run(self, command: Sequence[str], variables: dict[str, str]) -> None:
        process = subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others
        )
        try:
            _, errors = process.communicate()
        except BaseException:
            process.terminate()  # a launcher ends all that it has started
            process.wait()
            raise
        if process.returncode:
            self._fail(process.returncode, errors)

    def _fail(self, code: int, errors: str) -> NoReturn:
        """Raise what the processes have said."""
        told = [line for line in errors.partition("\n====")[0].splitlines() if line.strip()]
        sentence = next((line for line in told if line.startswith("error: ")), None)
        if sentence and code == 2:
            raise ArgumentError(sentence.removeprefix("error: "))
        last = f": {sentence or told[-1]}" if told else ""
        raise TrainingError(f"{self.name} ended with exit code {code}{last}")


def compare_processes(
    numbers: Sequence[int],
    model: str = "lenet5",
    batch_size: int = 128,
    dtype: str = "float32",
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[str], None] = lambda text: None,
    winograd: bool = True,
) -> Scaling:
    """Check that all ``numbers`` of processes give the same weights, then time them alternately.

    In the check, each batch has as many shards as the largest number, and each process has the same number of
    threads. When they are timed, each batch has as many shards as there are processes, as in `cnn train`, and
    the processes share the cores.

    Parameters
    ----------
    numbers : sequence of int
        At least two. The others are compared with the smallest.
    model, batch_size, dtype, rounds, say, show, winograd
        As in :func:`cnn.comparison.compare`.

    Raises
    ------
    DisagreementError
        If two of them do not give the same weights, bit for bit; then nothing is timed.
    ArgumentError
        If an argument is invalid, or MPI is not installed.
    """
    whole("rounds", rounds)
    numbers = sorted({whole("processes", number) for number in numbers})
    if len(numbers) < 2:
        raise ArgumentError("processes needs at least two different numbers to compare, as in 1,2,4")
    if numbers[-1] > whole("batch_size", batch_size):
        raise ArgumentError(
            f"{numbers[-1]} processes are more than the {batch_size} images of a batch: take larger batches"
        )
    make_workload(model, batch_size, dtype, winograd)  # raises an error before a process is started
    mpiexec = Mpiexec.find()
    chosen = [Processes(number, mpiexec) for number in numbers]
    cores = threads.count()
    most = chosen[-1]
    proof = Task(model, batch_size, dtype, winograd, most.count, most.threads(cores), STEPS, "")
    say("checking that all numbers of processes give the same weights")
    trained = _prove(chosen, proof, show)
    say(f"timing {rounds} rounds of steps")
    tasks = {
        each: replace(proof, shards=each.count, threads=each.threads(cores), steps=_steps(found))
        for each, found in trained.items()
    }
    timed = _take_turns(tasks, rounds, show)
    vector = trained[most].vector
    return Scaling(
        model=model,
        batch_size=batch_size,
        dtype=dtype,
        steps=worker.WARM_UP + STEPS,
        shards=proof.shards,
        proof_threads=proof.threads,
        cores=cores,
        vector=vector,
        machine=environment(),
        device=backends.get("cpu").describe(),
        columns=[_column(each, tasks[each].threads, found, vector) for each, found in timed.items()],
    )


def _prove(chosen: Sequence[Processes], task: Task, show: Callable[[str], None]) -> dict[Processes, Trained]:
    """Train with each number of processes; DisagreementError if the weights differ from the first's."""
    trained: dict[Processes, Trained] = {}
    for each in chosen:
        show(f"checking {each.name}")
        trained[each] = each.train(task)
        if trained[each].weights != trained[chosen[0]].weights:
            raise DisagreementError(
                f"{each.name} and {chosen[0].name} do not compute the same: after "
                f"{worker.WARM_UP + task.steps} steps with {task.shards} shards, their weights differ, so "
                "nothing was timed"
            )
    return trained


def _steps(trained: Trained) -> int:
    """How many steps take about BLOCK seconds."""
    return min(MOST, max(FEWEST, ceil(BLOCK / trained.seconds)))


def _take_turns(
    tasks: dict[Processes, Task], rounds: int, show: Callable[[str], None]
) -> dict[Processes, list[Trained]]:
    """Let each number of processes take ``rounds`` turns, or fewer if it has used up PATIENCE."""
    found: dict[Processes, list[Trained]] = {each: [] for each in tasks}
    used = dict.fromkeys(tasks, 0.0)
    for turn in range(rounds):
        for each, task in tasks.items():
            if turn < 3 or used[each] < PATIENCE:
                show(f"round {turn + 1} of {rounds}: {each.name}")
                start = time.perf_counter()
                found[each].append(each.train(task))
                used[each] += time.perf_counter() - start
    return found


def _column(each: Processes, threads: int, turns: Sequence[Trained], vector: int) -> Column:
    return Column(
        processes=each.count,
        threads=threads,
        step=Spread.of([turn.seconds for turn in turns]),
        wait=Spread.of([mean(turn.waits) for turn in turns]),
        least_wait=Spread.of([min(turn.waits) for turn in turns]),
        sent=sent_bytes(each.count, vector),
    )
