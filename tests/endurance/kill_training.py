"""Kill training runs at random moments, and check that nothing is lost.

python tests/endurance/kill_training.py [--help]

Each training is `cnn train` in a process of its own, which gets SIGKILL (now and then SIGTERM or SIGINT)
at any moment of its life, or while it writes a certain file, and goes on with --resume until it is killed
again or finished. After each kill every file in the run's folder has to be whole; each finished run has to
have the same weights, bit for bit, as one that nobody disturbed. Exits 1 where that is not so.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from durability.training import RUN, Training, faults, leftovers, weights
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, cnn.training.callbacks, cnn.cli
cnn.training.callbacks.Checkpoint.seconds, cnn.training.callbacks.Checkpoint.share = 0.05, 1
sys.argv[0] = "cnn"
cnn.cli.main()
"""
SIGNALS = {signal.SIGKILL: 8, signal.SIGTERM: 1, signal.SIGINT: 1}  # and how often each is taken
OFTEN = ("checkpoint.safetensors", "model.safetensors", "metrics.csv")  # what is written several times
STOPPING = "stopping after this batch"


@dataclass
class Tally:
    """What has happened so far."""

    hits: Counter = field(default_factory=Counter)  # by (stage, signal)
    finished: int = 0
    equal: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """By SIGKILL."""
        return sum(count for (_, number), count in self.hits.items() if number == signal.SIGKILL)


class Killer:
    """Trainings in ``folder`` that are killed, at moments that follow from ``seed``.

    ``reported`` is the share of the processes that are to draw a report, which takes long.
    """

    def __init__(self, folder: Path, seed: int, epochs: int, reported: float = 0.25) -> None:
        self.training = Training(folder, epochs, steps=6)
        self.folder = folder / "runs"
        self.folder.mkdir()
        self.run = self.folder / RUN
        self.random, self.reported = random.Random(seed), reported
        self.said = folder / "said"
        self.tally = Tally()

    def undisturbed(self) -> None:
        """One training from start to end, with whose weights all others are compared."""
        began = time.perf_counter()
        process = self._start(reports=self.reported > 0)
        if process.wait():
            raise RuntimeError(f"the undisturbed training failed: {self.said.read_text()}")
        self.seconds, self.weights = time.perf_counter() - began, weights(self.run)
        shutil.rmtree(self.run)

    def kill(self, kills: int) -> Iterator[Tally]:
        """Go on until ``kills`` processes were killed and the last run is finished; yields after each.

        Ends early where something is wrong.
        """
        while not self.tally.violations and (self.tally.kills < kills or self.run.exists()):
            disturbed = self.tally.kills < kills
            number = self.random.choices(list(SIGNALS), SIGNALS.values())[0]
            before = leftovers(self.folder)
            reports = self.random.random() < self.reported
            process = self._start(reports)
            try:
                if disturbed:
                    self._wait_for_the_moment(process, reports)
                    process.send_signal(number)  # nothing, where it has ended
                code = process.wait()
            finally:
                process.kill()
            said = self.said.read_text()
            self._require(not (wrong := faults(self.run)), f"after {said!r}: {wrong}")
            if code == 0:
                self._finish(said)
                continue
            new = leftovers(self.folder) - before
            self.tally.hits[self._stage(said, new), number] += 1
            self._require(disturbed and _is_expected(code, number, said), f"exit code {code} after {said!r}")
            self._require(len(leftovers(self.folder)) <= 1, f"files pile up: {leftovers(self.folder)}")
            yield self.tally

    def _start(self, reports: bool) -> subprocess.Popen:
        more = () if reports else ("--no-report",)
        with self.said.open("w") as said:
            return subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *self.training.arguments(self.run, *more)],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
                stdout=said,
                stderr=said,
            )

    def _wait_for_the_moment(self, process: subprocess.Popen, reports: bool) -> None:
        """Until any moment of an undisturbed life, or until a certain file is being written."""
        if self.random.random() < 0.5:
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.random.uniform(0, self.seconds))
            return
        aims = [*OFTEN, "evaluation.safetensors"]
        aims += ["report.html"] * reports + [RUN] * (not self.run.exists())
        aim = self.random.choice(aims)
        turn = self.random.randint(1, 8) if aim in OFTEN else 1  # two of one write: it begins, and has ended
        folder = self.folder if aim == RUN else self.run
        before, seen = _traces(folder, aim), set()
        while process.poll() is None and len(seen - before) < turn:
            seen |= _traces(folder, aim)
            time.sleep(0.0002)

    def _stage(self, said: str, new: set[Path]) -> str:
        """Where a process was when it ended."""
        for path in new:
            if path.parent == self.folder:
                return "making the folder"
            return f"writing {path.name[1:].rsplit('.', 2)[0]}"
        if "images of" not in said and "is finished" not in said:
            return "start-up"
        if (self.run / "evaluation.safetensors").exists():
            return "report"
        return "test" if f"epoch {self.training.epochs}/" in said or "is finished" in said else "steps"

    def _finish(self, said: str) -> None:
        """A run has come to its end: compare, and make room for the next."""
        self.tally.finished += 1
        is_equal = weights(self.run) == self.weights
        self.tally.equal += is_equal
        self._require(is_equal, "the weights of a finished run differ")
        self._require(not leftovers(self.folder), f"a finished run has left {leftovers(self.folder)}")
        self._require((self.run / "evaluation.safetensors").exists(), f"there was no test: {said!r}")
        shutil.rmtree(self.run)

    def _require(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.tally.violations.append(sentence)


def _traces(folder: Path, name: str) -> set[str | int]:
    """Of writers of ``name``: what is to become it when it is whole, and when it was changed."""
    traces: set[str | int] = set()
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.startswith(f".{name}."):
                traces.add(entry.name)
            elif entry.name == name:
                traces.add(entry.stat().st_mtime_ns)
    return traces


def _is_expected(code: int, number: int, said: str) -> bool:
    """Whether a process that got a signal ended as it should."""
    if STOPPING in said:
        return number != signal.SIGKILL and code == 128 + number and "stopped; `cnn train --resume " in said
    if number == signal.SIGINT:  # while Python itself starts, it is code 1
        in_python = code == 1 and "KeyboardInterrupt" in said and "images of" not in said
        return code in (-number, 130) or in_python
    return code == -number or (number == signal.SIGTERM and code == 143 and "terminated" in said)


def table(tally: Tally) -> Table:
    """How many processes got which signal at what stage."""
    made = Table("stage", box=box.SIMPLE)
    for number in SIGNALS:
        made.add_column(signal.Signals(number).name, justify="right")
    for stage in sorted({stage for stage, _ in tally.hits}):
        made.add_row(stage, *(str(tally.hits[stage, number]) for number in SIGNALS))
    made.add_section()
    made.add_row(
        "all", *(str(sum(tally.hits[hit] for hit in tally.hits if hit[1] == number)) for number in SIGNALS)
    )
    return made


def main() -> None:
    """Kill, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=100, help="by SIGKILL; others come on top (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--epochs", type=int, default=6, help="of each training (default: 6)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), arguments.seed, arguments.epochs)
        killer.undisturbed()
        for tally in killer.kill(arguments.kills):
            print(f"\r{tally.kills} of {arguments.kills} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    tally = killer.tally
    Console().print(table(tally))
    print(f"{tally.kills} kills; {tally.finished} runs finished, {tally.equal} of them with the same bits")
    for sentence in tally.violations:
        print(f"violation: {sentence}")
    sys.exit(bool(tally.violations))


if __name__ == "__main__":
    main()
