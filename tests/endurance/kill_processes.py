"""Kill processes that train together, and check that nothing is lost.

python tests/endurance/kill_processes.py [--help]

Each training run is `mpiexec -n 4 cnn train --shards 4`, or on fewer processes. One of them gets SIGKILL at
a random moment, or while a checkpoint is being written. Then all have to be gone within seconds, and every
file in the run's folder has to be whole. 1 to 4 processes resume the run, until one of them is killed again
or the run is finished. Each finished run must have the same weights, bit for bit, as one that nobody
disturbed. Exits 1 if something is wrong.
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
MPIEXEC = Path(sys.executable).with_name("mpiexec")
SHARDS = 4
GONE_WITHIN = 5.0  # seconds
PROGRAM = """
import os, sys, cnn.training.callbacks, cnn.cli
from cnn.training.distributed import launcher
with open(f"rank {launcher.rank()}", "w") as file:
    file.write(f"{os.getpid()}\\n")
cnn.training.callbacks.Checkpoint.seconds, cnn.training.callbacks.Checkpoint.share = 0.05, 1
sys.argv[0] = "cnn"
cnn.cli.main()
"""


@dataclass
class Tally:
    """What has happened so far."""

    hits: Counter = field(default_factory=Counter)  # by (processes, the one that was killed, the stage)
    finished: int = 0
    equal: int = 0
    longest: float = 0.0  # seconds until all processes were gone
    violations: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How often a process was killed."""
        return sum(self.hits.values())


class Killer:
    """Training runs in ``folder`` whose processes are killed, at moments that follow from ``seed``.

    They have ``most`` processes at most.
    """

    def __init__(self, folder: Path, seed: int, epochs: int, most: int = SHARDS) -> None:
        self.training = Training(folder, epochs, steps=9)
        self.folder, self.most = folder / "runs", most
        self.folder.mkdir()
        self.run = self.folder / RUN
        self.random = random.Random(seed)
        self.said = folder / "said"
        self.tally = Tally()

    def undisturbed(self) -> None:
        """One run from start to end, with whose weights all others are compared."""
        began = time.perf_counter()
        process = self._start(self.most)
        if process.wait():
            raise RuntimeError(f"the undisturbed run failed: {self.said.read_text()}")
        self.seconds, self.weights = time.perf_counter() - began, weights(self.run)
        shutil.rmtree(self.run)

    def kill(self, times: int) -> Iterator[Tally]:
        """Continue until ``times`` processes were killed and the last run is finished; yields after each.

        Ends early if something is wrong.
        """
        while not self.tally.violations and (self.tally.kills < times or self.run.exists()):
            processes = self.random.randint(1, self.most)
            before = leftovers(self.folder)
            launcher = self._start(processes)
            try:
                victim = self._strike(launcher, processes) if self.tally.kills < times else None
                if victim is not None:
                    self._require_gone(launcher, processes)
                code = launcher.wait()
            finally:
                launcher.kill()
            self._require(not (wrong := faults(self.run)), f"after {self._words()}: {wrong}")
            if code == 0:
                self._finish()
                continue
            stage = self._stage(leftovers(self.folder) - before)
            self.tally.hits[processes, victim, stage] += 1
            self._require(victim is not None, f"exit code {code} after {self._words()}")
            yield self.tally

    def _start(self, processes: int) -> subprocess.Popen:
        launcher = [str(MPIEXEC), "-n", str(processes)] if processes > 1 else []
        more = ["--no-report", "--threads", "1", *(() if self.run.exists() else ("--shards", str(SHARDS)))]
        for path in self.folder.glob("rank *"):
            path.unlink()
        with self.said.open("w") as said:
            return subprocess.Popen(
                [*launcher, sys.executable, "-c", PROGRAM, *self.training.arguments(self.run, *more)],
                cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def _strike(self, launcher: subprocess.Popen, processes: int) -> int | None:
        """Kill one of the processes at a random moment; -> its number, or None if they have ended before."""
        if self.random.random() < 0.5:
            self._wait_for_a_checkpoint(launcher)
        else:
            _wait(launcher, self.random.uniform(0, self.seconds))
        while launcher.poll() is None:
            victim = self.random.randrange(processes)
            if (found := self._process(victim)) and _is_running(found):
                os.kill(found, signal.SIGKILL)
                return victim
            time.sleep(0.01)
        return None

    def _wait_for_a_checkpoint(self, launcher: subprocess.Popen) -> None:
        """Wait until a checkpoint is being written, one of the next few."""
        turn, seen = self.random.randint(1, 8), set()
        while launcher.poll() is None and len(seen) < turn:
            seen |= {path.name for path in self.run.glob(".checkpoint.safetensors.*")}
            time.sleep(0.0002)

    def _process(self, rank: int) -> int | None:
        """The process of this number; None if it has not said so yet."""
        path = self.folder / f"rank {rank}"
        text = path.read_text() if path.exists() else ""
        return int(text) if text.endswith("\n") else None

    def _require_gone(self, launcher: subprocess.Popen, processes: int) -> None:
        """Wait until the launcher and all processes are gone, which must not take long."""
        began = time.perf_counter()
        _wait(launcher, GONE_WITHIN)
        numbers = [found for rank in range(processes) if (found := self._process(rank))]
        while (left := [number for number in numbers if _is_running(number)]) or launcher.poll() is None:
            if time.perf_counter() - began > GONE_WITHIN:
                break
            time.sleep(0.01)
        self.tally.longest = max(self.tally.longest, time.perf_counter() - began)
        self._require(
            not left and launcher.poll() is not None,
            f"{len(left)} of {processes} processes are left after {GONE_WITHIN:g} s: {self._words()}",
        )
        for number in left:
            os.kill(number, signal.SIGKILL)

    def _stage(self, new: set[Path]) -> str:
        """Where the processes were when they ended."""
        for path in new:
            if path.parent == self.folder:
                return "making the folder"
            return f"writing {path.name[1:].rsplit('.', 2)[0]}"
        said = self.said.read_text()
        if "images of" not in said and "is finished" not in said:
            return "start-up"
        return "test" if f"epoch {self.training.epochs}/" in said or "is finished" in said else "steps"

    def _finish(self) -> None:
        """A run has come to its end: compare, and make room for the next."""
        self.tally.finished += 1
        is_equal = weights(self.run) == self.weights
        self.tally.equal += is_equal
        self._require(is_equal, "the weights of a finished run differ")
        self._require(not leftovers(self.folder), f"a finished run has left {leftovers(self.folder)}")
        shutil.rmtree(self.run)

    def _words(self) -> str:
        return repr(self.said.read_text()[-2000:])

    def _require(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.tally.violations.append(sentence)


def _wait(process: subprocess.Popen, seconds: float) -> None:
    """Wait for the end of a process, or for so many seconds."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _is_running(number: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    try:  # one that has ended and that nobody has asked about is still there
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self/stat").exists()


def table(tally: Tally) -> Table:
    """How often a process of so many was killed at what stage."""
    made = Table("stage", box=box.SIMPLE)
    sizes = sorted({processes for processes, _, _ in tally.hits})
    counts: Counter = Counter()
    for (processes, _, stage), count in tally.hits.items():
        counts[processes, stage] += count
        counts[processes, "all"] += count
    for processes in sizes:
        made.add_column(f"of {processes}", justify="right")
    for stage in [*sorted({stage for *_, stage in tally.hits}), "all"]:
        made.add_row(stage, *(str(counts[processes, stage]) for processes in sizes))
    return made


def main() -> None:
    """Kill, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=50, help="how often to kill (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--epochs", type=int, default=6, help="of each run (default: 6)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), arguments.seed, arguments.epochs)
        killer.undisturbed()
        for tally in killer.kill(arguments.times):
            print(f"\r{tally.kills} of {arguments.times} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    tally = killer.tally
    Console().print(table(tally))
    firsts = sum(count for (_, victim, _), count in tally.hits.items() if victim == 0)
    print(f"{tally.kills} kills, {firsts} of them of process 0; all were gone within {tally.longest:.1f} s")
    print(f"{tally.finished} runs finished, {tally.equal} of them with the same bits")
    for sentence in tally.violations:
        print(f"violation: {sentence}")
    sys.exit(bool(tally.violations))


if __name__ == "__main__":
    main()
