"""Trying damaged files on a reader, in a process of its own: it may be killed, crash or hang."""

import faulthandler
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cnn.support.errors import ArgumentError, CheckpointError, DataError, Notice, ShapeError
from fuzz.memory import ENVIRONMENT, Peak, limit_to
from fuzz.targets import TARGETS, Target, lay_out

OURS = (ArgumentError, CheckpointError, DataError, ShapeError)
PATIENCE = 60  # seconds for an input; none should need one
ROOM = 6 << 30  # bytes of addresses
LONGEST = 1000  # letters of a message
SEARCHED = tuple(str(Path(__file__).resolve().parents[up]) for up in (1, 3))  # for fuzz, for cnn

READY = "ready"  # said once the valid files have been read
ACCEPTED, REFUSED, FAILED = "accepted", "refused", "FAILED"


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    number: int
    result: str  # accepted, refused or FAILED
    reason: str  # of an error or a failure
    share: float  # of the memory that it may take


@dataclass
class Report:
    """What became of many inputs of one format."""

    format: str
    seed: int
    accepted: int = 0
    refused: int = 0
    largest_share: float = 0
    failures: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count it; a failure is printed so that it can be repeated."""
        self.accepted += outcome.result == ACCEPTED
        self.refused += outcome.result == REFUSED
        self.largest_share = max(self.largest_share, outcome.share)
        if outcome.result == FAILED:
            again = f"--format {self.format} --seed {self.seed} --number {outcome.number}"
            self.failures.append(
                f"{self.format}, seed {self.seed}, number {outcome.number}: {outcome.reason}\n"
                f"    again: python tests/endurance/fuzz_readers.py {again}"
            )

    def merge(self, other: "Report") -> None:
        """Count what another process found too."""
        self.accepted += other.accepted
        self.refused += other.refused
        self.largest_share = max(self.largest_share, other.largest_share)
        self.failures += other.failures


def spoiled(target: Target, seed: int, number: int, files: list[bytes]) -> bytes:
    """An input: the same for the same seed and number."""
    source = random.Random(f"{target.name} {seed} {number}")
    mutate = source.choice(target.mutators)
    return mutate(source.choice(files), source.choice(files), source)


def try_file(target: Target, path: Path, number: int = 0) -> Outcome:
    """Have the file at ``path`` read; -> what happened."""
    peak = Peak()
    try:
        with peak.watch():
            target.read(path)
        result, reason = ACCEPTED, ""
    except OURS as error:
        result, reason = REFUSED, str(error)
    except BaseException:
        result, reason = FAILED, traceback.format_exc()
    bound = target.bound(path)
    if len(reason) > LONGEST and result == REFUSED:
        result, reason = FAILED, f"an error of {len(reason):,} letters: {reason[:200]}"
    if peak.bytes > bound:
        result, reason = (
            FAILED,
            f"{peak.bytes:,} bytes of memory, expected at most {bound:,.0f}; {result} {reason}",
        )
    return Outcome(number, result, reason, peak.bytes / bound)


def work(name: str, seed: int, first: int, last: int) -> Iterator[Outcome]:
    """Outcomes of the inputs from ``first`` to before ``last``, in this process."""
    target = TARGETS[name]
    files = target.corpus()
    with tempfile.TemporaryDirectory() as folder:
        path = lay_out(target, Path(folder) / "files")
        for data in files:  # also so that what is made once is there when memory is measured
            path.write_bytes(data)
            target.read(path)
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", Notice)  # which a reader may give
        limit_to(ROOM)
        say(READY)
        for number in range(first, last):
            path.write_bytes(spoiled(target, seed, number, files))
            with patience():
                outcome = try_file(target, path, number)
            yield outcome


@contextmanager
def patience() -> Iterator[None]:
    """What takes too long ends the process, with a traceback, where the system has alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fuzz(name: str, seed: int, first: int, last: int) -> Report:
    """The same in processes of their own: one that dies is a failure of its input, and the next goes on."""
    report = Report(name, seed)
    command = [sys.executable, "-m", "fuzz.run", name, str(seed)]
    while first < last:
        done = subprocess.run(
            [*command, str(first), str(last)],
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        ready, *lines = done.stdout.splitlines() or [""]
        if ready != READY:
            raise RuntimeError(
                f"{name}: the process did not start, or could not read valid files: {done.stderr}"
            )
        for line in lines:
            outcome = Outcome(**json.loads(line))
            report.add(outcome)
            first = outcome.number + 1
        if first < last:
            reason = f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
            report.add(Outcome(first, FAILED, reason, 0))
            first += 1
    return report


def environment() -> dict[str, str]:
    """Of those processes."""
    return os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(SEARCHED), "OPENBLAS_NUM_THREADS": "1"}


def say(line: str) -> None:
    """Tell the process that started this one."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Be such a process: a line of JSON for each outcome."""
    name, *numbers = sys.argv[1:]
    for outcome in work(name, *map(int, numbers)):
        say(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
