"""Trains LeNet-5 in one process, and in two processes over the cable; compares the time with the model."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from shared.progress import say

from cnn.comparison.scaling import Link, sent_bytes
from cnn.comparison.worker import WARM_UP, Task, Trained
from cnn.inspection.timing import Spread
from cnn.support.errors import DisagreementError
from tcp_parts.wire import ADDRESSES, CommandFailed, Wire

PARTS = Path(__file__).resolve().parent
FOLDERS = PARTS.parent, PARTS.parents[2]  # where the processes find this package and the library
PROOF_STEPS = 5
HEADERS = 0.12  # of the bytes: headers of 66 bytes a packet, and the other side's acknowledgements
MORE = 3000  # bytes of a step: the small message, with its headers
PATIENCE = 900.0  # seconds that a training run may take


@dataclass(frozen=True)
class Cable:
    """What joins the namespaces, and what plain sockets measure of it."""

    rate: float  # bits a second, as limited
    delay: float  # seconds in one direction that were added; 0 if the kernel cannot
    round_trip: float  # seconds, measured
    measured_rate: float  # bits a second, measured

    @property
    def link(self) -> Link:
        """The cable in the model: its limit, and half of the measured round trip."""
        return Link(self.rate, self.round_trip / 2)


@dataclass(frozen=True)
class Row:
    """A training step at one batch size; times are in seconds, of all rounds."""

    batch_size: int
    one: Spread  # in one process
    two: Spread  # in two processes over the cable
    wait: Spread  # of such a step, in the exchange or for the other process
    predicted: float  # by the model, from the median of one process
    sent: float  # bytes that a process sent in a step, as counted on the cable
    expected: float  # bytes that it has to send

    @property
    def ratio(self) -> float:
        """The measured time of a step relative to the model's."""
        return self.two.median / self.predicted


class Processes:
    """Starts the training runs."""

    def __init__(self, wire: Wire, mpiexec: Path) -> None:
        self._wire, self._mpiexec = wire, mpiexec

    def train(self, count: int, task: Task) -> tuple[Trained, list[list[int]]]:
        """Train in one process, or in two over the cable.

        -> what they measured, and for each of two processes the bytes that it has sent and received.
        """
        paths = os.pathsep.join([*map(str, FOLDERS), *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = {"PYTHONPATH": paths}
        with tempfile.TemporaryDirectory(prefix="cnn-") as folder:
            task = replace(task, file=str(Path(folder) / "trained.json"))
            program = [sys.executable, "-P", "-m", "tcp_parts.trainer", json.dumps(asdict(task))]
            if count == 1:
                run(self._wire.inside(0, program), os.environ | variables)
            else:
                self._wire.run(self._mpiexec, program, variables, PATIENCE)
            found = json.loads(Path(task.file).read_text())
        return Trained(**found["trained"]), found["bytes"]


def measure(
    wire: Wire, mpiexec: Path, batch_sizes: Sequence[int], rounds: int, steps: int
) -> tuple[Cable, list[Row]]:
    """Check at each batch size that both give the same weights, then time them in turns."""
    processes = Processes(wire, mpiexec)
    cable = probe(wire)
    for size in batch_sizes:
        say(f"checking that one process and two give the same weights, batch {size}")
        prove(processes, size)
    ones: dict[int, list[Trained]] = {size: [] for size in batch_sizes}
    twos: dict[int, list[Trained]] = {size: [] for size in batch_sizes}
    sent: dict[int, list[float]] = {size: [] for size in batch_sizes}
    for number in range(rounds):
        for size in batch_sizes:
            say(f"round {number + 1} of {rounds}, batch {size}")
            task = make_task(size, 1, steps)
            ones[size].append(processes.train(1, task)[0])
            trained, counted = processes.train(2, replace(task, shards=2))
            twos[size].append(trained)
            sent[size].append(sent_in_a_step(counted, steps, sent_bytes(2, trained.vector)))
    return cable, [make_row(size, ones[size], twos[size], sent[size], cable) for size in batch_sizes]


def make_task(batch_size: int, shards: int, steps: int) -> Task:
    """LeNet-5 with one thread in each process."""
    return Task("lenet5", batch_size, "float32", True, shards=shards, threads=1, steps=steps, file="")


def prove(processes: Processes, batch_size: int) -> None:
    """Raise DisagreementError unless one process and two give the same weights, bit for bit."""
    task = make_task(batch_size, 2, PROOF_STEPS)
    if processes.train(1, task)[0].weights != processes.train(2, task)[0].weights:
        raise DisagreementError(
            f"one process and two over TCP do not compute the same: after {WARM_UP + PROOF_STEPS} steps with "
            f"batch {batch_size} the weights differ, so nothing was timed"
        )


def sent_in_a_step(counted: Sequence[Sequence[int]], steps: int, expected: float) -> float:
    """The mean of the bytes that a process sent; CommandFailed if they cannot be those of the exchange.

    What a process has sent in a step may leave it in the next one, so a vector more or less is allowed.
    """
    for sent, received in counted:
        for found in (sent, received):
            least, most = (steps - 1) * expected, (steps + 1) * expected * (1 + HEADERS) + steps * MORE
            if not least <= found <= most:
                raise CommandFailed(
                    f"{found:,} bytes crossed the cable in {steps} steps, expected {least:,.0f} to "
                    f"{most:,.0f}: the processes did not exchange their gradients over TCP"
                )
    return mean(sent for sent, _ in counted) / steps


def make_row(
    batch_size: int, ones: Sequence[Trained], twos: Sequence[Trained], sent: Sequence[float], cable: Cable
) -> Row:
    """The measurements of all rounds, and the model's step: half of one process's, and the exchange."""
    one, vector = Spread.of([trained.seconds for trained in ones]), twos[0].vector
    return Row(
        batch_size=batch_size,
        one=one,
        two=Spread.of([trained.seconds for trained in twos]),
        wait=Spread.of([mean(trained.waits) for trained in twos]),
        predicted=one.median / 2 + cable.link.exchange_seconds(2, vector),
        sent=mean(sent),
        expected=sent_bytes(2, vector),
    )


def probe(wire: Wire) -> Cable:
    """Measure the cable with plain sockets."""
    program = [sys.executable, str(PARTS / "probe.py")]
    listener = subprocess.Popen(
        wire.inside(1, [*program, "listen"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if not listener.stdout or not listener.stdout.readline():
            raise CommandFailed(f"nothing listens in the other namespace:\n{listener.communicate()[1]}")
        found = json.loads(run(wire.inside(0, [*program, ADDRESSES[1]]), os.environ))
        listener.communicate(timeout=60)
    finally:
        listener.kill()
        listener.wait()
    return Cable(wire.rate or 0.0, wire.delay, found["round_trip"], found["rate"])


def run(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """What a program prints; CommandFailed if it fails."""
    done = subprocess.run(
        command, env=dict(variables), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise CommandFailed(f"a process ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
