"""Fail every write of a training run, and check that nothing is lost.

python tests/endurance/fail_writes.py [--help]

`cnn train` runs again and again, and each time another one of its calls that change files (write, fsync,
open, rename, ...) is failed as a full or broken disk, or one that can only be read, would fail it. The run
has to go on all the same, or to end with a sentence that names the file and the reason; the last good
checkpoint has to be there, and --resume has to come to the same weights, bit for bit, as if nothing had
happened. Then come real disasters: a full disk, a folder that is removed, and others. Exits 1 where
something is otherwise.

Needs Linux and a C compiler; some of the disasters need root.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from errno import EACCES, EIO, ENOENT, ENOLCK, ENOSPC, EROFS
from math import inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from durability import shim
from durability.bench import Bench, Scenario
from durability.disasters import DISASTERS, Unavailable, suffer
from durability.shim import LASTING, SHORT, way_name
from rich import box
from rich.console import Console
from rich.table import Table

import cnn

WAYS = {
    "open": (EACCES, ENOENT, EIO, EROFS | LASTING, ENOSPC | LASTING),
    "opendir": (EACCES, ENOENT, EIO),
    "write": (SHORT, EIO, ENOSPC | LASTING),
    "fsync": (EIO, ENOSPC | LASTING),
    "ftruncate": (EIO, ENOSPC),
    "rename": (EACCES, ENOENT, EIO, ENOSPC, EROFS | LASTING),
    "mkdir": (EACCES, ENOENT, EROFS | LASTING, ENOSPC | LASTING),
    "unlink": (EACCES, EIO, EROFS | LASTING),
    "flock": (ENOLCK,),
}
ENDINGS = ("went on", "ended with an error", "wrong")


@dataclass(frozen=True)
class Case:
    """A call of a scenario, from 1, and the way in which it is failed."""

    scenario: Scenario
    nth: int
    call: str
    way: int

    def __str__(self) -> str:
        return f"{self.scenario.name}, call {self.nth}, {self.call} {way_name(self.way)}"


def cases(bench: Bench, scenario: Scenario) -> list[Case]:
    """Each call of an undisturbed run in each way; of a report, which takes long, each in one way in turn."""
    _, calls = bench.attempt(scenario)
    return [
        Case(scenario, nth, call.name, way)
        for nth, call in enumerate(calls, 1)
        for turn, way in enumerate(WAYS[call.name])
        if "--no-report" in scenario.more or nth % len(WAYS[call.name]) == turn
    ]


def sweep(bench: Bench, chosen: list[Case]) -> tuple[Table, list[str]]:
    """Fail each; -> a table of what came of it, and what was otherwise than it should be."""
    counts, found = Counter(), []
    for number, case in enumerate(chosen, 1):
        outcome, calls = bench.attempt(case.scenario, case.nth, case.way)
        wrong = bench.violations(case.scenario, outcome, calls)
        ending = ENDINGS[2] if wrong else ENDINGS[bool(outcome.code)]
        counts[case.call, way_name(case.way), ending] += 1
        found += [f"{case}: {sentence}" for sentence in wrong]
        print(f"\r{number} of {len(chosen)} calls failed", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    table = Table("call", "failed with", box=box.SIMPLE)
    for heading in ("faults", *ENDINGS):
        table.add_column(heading, justify="right")
    for call, way in [*sorted({(call, way) for call, way, _ in counts}), ("all", "")]:
        matching = {key: count for key, count in counts.items() if call == "all" or key[:2] == (call, way)}
        numbers = [sum(n for key, n in matching.items() if key[2] == ending) for ending in ENDINGS]
        table.add_row(call, way, str(sum(numbers)), *map(str, numbers))
    return table, found


def suffer_all(bench: Bench) -> tuple[Table, list[str]]:
    """Let every disaster happen; -> a table, and what was otherwise than it should be."""
    table, found = Table("what really happened", "the training", box=box.SIMPLE), []
    for disaster in DISASTERS:
        try:
            wrong = suffer(bench, disaster)
        except Unavailable as error:
            table.add_row(disaster.name, f"LEFT OUT: {error}")
            continue
        table.add_row(disaster.name, ENDINGS[2] if wrong else ENDINGS[bool(disaster.reason)])
        found += [f"{disaster.name}: {sentence}" for sentence in wrong]
    return table, found


def main() -> None:
    """Fail, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, help="only so many faults, chosen at random, and no disasters")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default: 0)")
    arguments = parser.parse_args()
    if shim.compiler() is None:
        print("NO WRITE WAS FAILED: that takes Linux, and cc or gcc on the PATH", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        if shim.loaded() is None:
            sys.exit(shim.run_again(Path(folder)))
        cnn.Checkpoint.seconds, cnn.Checkpoint.share = 0, inf  # one a step: always the same calls
        bench = Bench(Path(folder).resolve())
        chosen = [case for scenario in bench.prepare() for case in cases(bench, scenario)]
        if arguments.sample is not None:
            chosen = random.Random(arguments.seed).sample(chosen, arguments.sample)
        table, violations = sweep(bench, chosen)
        Console().print(table)
        if arguments.sample is None:
            table, more = suffer_all(bench)
            Console().print(table)
            violations += more
    for sentence in violations:
        print(f"violation: {sentence}")
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
