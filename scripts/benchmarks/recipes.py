"""The accuracy and the time of a recipe: python scripts/benchmarks/recipes.py NAME [--help].

Runs `cnn train --recipe NAME` once for each seed, each time in a new process, and writes the accuracies and
times to docs/measurements/recipes/NAME.json and to the table in docs/measurements/recipes.md. The files are
written after each seed. If the script is called again with the same recipe, data, code and machine, only the
missing seeds are trained. With --peer, it times a part of an epoch in turns with PyTorch instead. Flags after
-- are passed to `cnn train`. The machine should have nothing else to do.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from recipe_parts import page
from recipe_parts.command import ROOT, Command, CommandFailed
from recipe_parts.measured import describe
from recipe_parts.pytorch import compare, require_pytorch
from recipe_parts.record import Record, to_compare, to_train
from shared.options import Parser, whole
from shared.progress import say

from cnn.runs import build, recipes
from cnn.runs.config import Config
from cnn.support.errors import ArgumentError, DataError, DeviceUnavailable, DisagreementError
from cnn.support.files import reason_of
from cnn.support.terminal import write_line
from cnn.support.text import duration, percent

FOLDER = ROOT / "docs" / "measurements" / "recipes"
PAGE = ROOT / "docs" / "measurements" / "recipes.md"
SEEDS, FIRST_SEED = 5, 100


def main() -> None:
    """Measure a recipe and write what was found."""
    parser = make_parser()
    own, flags = at_dashes(sys.argv[1:])
    arguments = parser.parse_args(own)
    try:
        require_sense(arguments, flags)
        page.around_table(PAGE)  # before anything is trained
        page.read_all(FOLDER)
        if not arguments.table:
            measure(arguments, flags)
        records = page.read_all(FOLDER)
        page.write_table(PAGE, records)
        write_line(page.make_table(records))
    except (ArgumentError, DataError, DeviceUnavailable) as error:
        parser.error(str(error))
    except CommandFailed as error:
        parser.exit(error.code, f"error: {error}\n")
    except DisagreementError as error:
        parser.exit(1, f"error: {error}\n")
    except BrokenProcessPool:
        parser.exit(1, "error: a process was killed, probably because the memory is too small\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: the same call continues with what is missing\n")
    except OSError as error:
        parser.exit(1, f"error: {reason_of(error)}\n")


def make_parser() -> Parser:
    """Make the parser of the options."""
    parser = Parser(__doc__)
    names = ", ".join(recipes.NAMES)
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"the recipe: {names}")
    seeds = f"how many seeds are trained (default: {SEEDS})"
    parser.add_argument("--seeds", type=whole(), default=SEEDS, metavar="N", help=seeds)
    first = f"the first of them (default: {FIRST_SEED})"
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, metavar="N", help=first)
    data = "the data set, as cnn train takes it (default: the recipe's)"
    parser.add_argument("--data", metavar="PATH", help=data)
    peer = "train nothing; compare a part of an epoch with PyTorch, which must be installed"
    parser.add_argument("--peer", action="store_true", help=peer)
    table = "measure nothing; only write the table again, from the JSON files"
    parser.add_argument("--table", action="store_true", help=table)
    return parser


def at_dashes(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words before and after the first ``--``."""
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def require_sense(arguments: argparse.Namespace, flags: Sequence[str]) -> None:
    """Raise ArgumentError for options that do not belong together, and for an unknown recipe."""
    if arguments.table:
        if arguments.name or arguments.peer or flags:
            raise ArgumentError("--table measures nothing: leave the recipe and the other options out")
    elif arguments.name is None:
        raise ArgumentError(f"no recipe is given: expected one of {', '.join(recipes.NAMES)}, or --table")
    else:
        recipes.require(arguments.name)
        if arguments.peer:
            require_pytorch()


def measure(arguments: argparse.Namespace, flags: Sequence[str]) -> None:
    """Train the missing seeds, or compare with PyTorch."""
    name, first = arguments.name, arguments.first_seed
    command = Command(name, arguments.data, flags)
    plan = command.plan(first)
    config = Config(**plan["config"])
    sets = build.load_data(config)
    measured = describe(config, plan["steps"], sets, recipes.read(name).flags["data"])
    path = FOLDER / f"{name}.json"
    if arguments.peer:
        record = to_compare(path, name, measured, first)
        found = compare(config, plan["steps"], sets[0])
        record.pytorch = {"commit": measured["commit"], "machine": measured["machine"], **found}
        save(record, path)
        return
    record = to_train(path, name, measured, first, say)
    done = {run.seed for run in record.runs}
    for seed in range(first, first + arguments.seeds):
        if seed not in done:
            run = command.run(seed)
            record.add(run)
            save(record, path)
            took = f"training {duration(run.training_seconds)}, command {duration(run.command_seconds)}"
            say(f"{name}, seed {seed}: accuracy {percent(run.accuracy)}, {took}")


def save(record: Record, path: Path) -> None:
    """Write the record and the table."""
    record.write(path)
    page.write_table(PAGE, page.read_all(FOLDER))


if __name__ == "__main__":
    main()
