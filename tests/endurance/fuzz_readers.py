"""Give every reader of files damaged and hostile ones: python tests/endurance/fuzz_readers.py [--help].

Each is to be read, or refused with one of our own errors, within a bound on memory that follows from the
file. Prints a line for each format, then the failures with the command that tries each again; exits 1 where
there are any. The tests try 150 of each in the same way.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fuzz.run import FAILED, Report, fuzz, spoiled, try_file
from fuzz.targets import TARGETS, lay_out

CHUNK = 1000  # inputs a process


def main() -> None:
    """Try them and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--format", choices=TARGETS, help="only this one")
    parser.add_argument("--inputs", type=int, default=20_000, help="of each format (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="another gives other inputs (default: 0)")
    parser.add_argument("--number", type=int, help="try this one alone, here, and show what happens")
    arguments = parser.parse_args()
    if arguments.number is not None:
        if arguments.format is None:
            parser.error("--number is one of a format's: give --format too")
        sys.exit(try_one(arguments.format, arguments.seed, arguments.number))
    names = [arguments.format] if arguments.format else list(TARGETS)
    failures = []
    print(f"{'format':12} {'inputs':>7} {'accepted':>9} {'refused':>8} {'failed':>7} {'memory':>21}")
    for report in fuzz_all(names, arguments.seed, arguments.inputs):
        inputs = report.accepted + report.refused + len(report.failures)
        print(
            f"{report.format:12} {inputs:7,} {report.accepted:9,} {report.refused:8,} "
            f"{len(report.failures):7,} {report.largest_share:21.0%}",
            flush=True,
        )
        failures += report.failures
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


def fuzz_all(names: list[str], seed: int, inputs: int) -> Iterator[Report]:
    """A report of each format, on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = {
            name: [
                pool.submit(fuzz, name, seed, first, min(first + CHUNK, inputs))
                for first in range(0, inputs, CHUNK)
            ]
            for name in names
        }
        for name, futures in parts.items():
            report = Report(name, seed)
            for future in futures:
                report.merge(future.result())
            yield report


def try_one(name: str, seed: int, number: int) -> int:
    """The exit code."""
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = lay_out(target, Path(folder) / "files")
        path.write_bytes(spoiled(target, seed, number, target.corpus()))
        outcome = try_file(target, path, number)
    print(f"{outcome.result}, {outcome.share:.0%} of the memory that it may take\n{outcome.reason}".rstrip())
    return 1 if outcome.result == FAILED else 0


if __name__ == "__main__":
    main()
