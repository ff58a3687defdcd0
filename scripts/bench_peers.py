"""Ours beside PyTorch, JAX and the notebook's loops: python scripts/bench_peers.py [--help].

Training steps and inference of the same networks, from the same weights and on the same batches, timed in
turns after a check that all compute the same. Who is not installed is absent: pip install torch jax.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from pathlib import Path
from typing import NoReturn, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers import memory, scaling
from peers.agreement import Job
from peers.contenders import CONTENDERS, LOOKED_INTO
from peers.networks import NETWORKS
from peers.page import make_page, make_tables
from peers.processes import Processes, measure_growth, say
from peers.results import Memory, Results, describe_machine
from peers.task import PHASES, Setting

import backends
from cnn.comparison.plot import require_drawing
from cnn.errors import ArgumentError, DisagreementError
from cnn.files import require_place, write_json, write_whole

CORES: int = backends.get("cpu", kernels="portable").describe()["cores"]

T = TypeVar("T")


def main() -> None:
    """Check, time, and show what was found."""
    parser = make_parser()
    arguments = parser.parse_args()
    try:
        require_places(arguments)
        results = run(arguments)
        print(make_tables(results))
        write_files(results, arguments)
    except ArgumentError as error:
        parser.error(str(error))
    except DisagreementError as error:
        parser.exit(1, f"error: {error}\n")
    except BrokenProcessPool:
        parser.exit(1, "error: a process was killed, probably for its memory: take smaller batches\n")


class Parser(argparse.ArgumentParser):
    """Answers a mistake in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def make_parser() -> Parser:
    """The options."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def add(name: str, default: Iterable[object], each: Callable[[str], object], meaning: str) -> None:
        text = ",".join(map(str, default))
        parser.add_argument(name, type=listed(each), default=text, help=f"{meaning} (default: {text})")

    add("--networks", NETWORKS, one_of(NETWORKS), "which are measured")
    add("--batch-sizes", (1, 32, 128, 512), whole(), "images a step")
    add("--threads", sorted({1, CORES}), whole(CORES), "how many each library may use")
    add("--peers", CONTENDERS, one_of(CONTENDERS), "who takes part")
    parser.add_argument("--rounds", type=whole(), default=21, help="how often all take turns (default: 21)")
    parser.add_argument("--only", choices=PHASES, help="leave the other out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, for programs")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page for the documentation")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.png",
        help="also measure and draw what an image costs over batch size, image size, channels and threads: "
        "a PNG, and an SVG beside it",
    )
    return parser


def listed(each: Callable[[str], T]) -> Callable[[str], list[T]]:
    """As "1,32" into [1, 32]; each once."""
    return lambda text: list(dict.fromkeys(map(each, text.split(","))))


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """A name that must be among these."""

    def convert(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}: expected some of {', '.join(names)}")
        return text

    return convert


def whole(most: int | None = None) -> Callable[[str], int]:
    """A whole number from 1."""

    def convert(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= (most or int(text)):
            limit = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1{limit}")
        return int(text)

    return convert


def require_places(arguments: argparse.Namespace) -> None:
    """Raise ArgumentError where a file that is asked for could not be written."""
    for path in filter(None, (arguments.json, arguments.markdown)):
        require_place(path)
    if arguments.plot:
        require_drawing(arguments.plot)


def run(arguments: argparse.Namespace) -> Results:
    """Prove everything, then measure everything; DisagreementError where something is apart."""
    phases = [arguments.only] if arguments.only else PHASES
    names = [name for name in CONTENDERS if name in arguments.peers]
    jobs = [
        Job(Setting(NETWORKS[network], batch_size, threads), names)
        for network in arguments.networks
        for batch_size in sorted(arguments.batch_sizes)
        for threads in arguments.threads
    ]
    panels = scaling.make_panels(CORES) if arguments.plot else []
    drawn_names = [name for name in names if name in LOOKED_INTO]
    drawn = [Job(setting, drawn_names) for panel in panels for setting in panel.settings.values()]
    with Processes(job.setting.threads for job in jobs + drawn) as processes:
        return Results(
            machine=describe_machine(),
            rounds=arguments.rounds,
            absent=processes.prove(jobs + drawn),
            figures=processes.measure(jobs, phases, arguments.rounds),
            memory=measure_memory(arguments.networks, names) if "training" in phases else [],
            scaling=processes.measure(drawn, ["training"], arguments.rounds),
        )


def measure_memory(networks: Sequence[str], names: Sequence[str]) -> list[Memory]:
    """What each training's process grows by, with all cores."""
    found = []
    for network, name in product(networks, (name for name in names if name in LOOKED_INTO)):
        setting = Setting(NETWORKS[network], memory.BATCH_SIZE, CORES)
        grown = measure_growth(setting, name)
        if grown is not None:
            found.append(Memory(network, memory.BATCH_SIZE, name, grown))
    return found


def write_files(results: Results, arguments: argparse.Namespace) -> None:
    """What was asked for, named on standard error."""
    written = []
    if arguments.json:
        write_json(arguments.json, results.as_plain())
        written.append(arguments.json)
    if arguments.plot:
        written += scaling.draw(scaling.make_panels(CORES), results.scaling, arguments.plot)
    if arguments.markdown:
        page = make_page(results, command(arguments), arguments.plot, arguments.markdown)
        write_whole(arguments.markdown, page.encode())
        written.append(arguments.markdown)
    for path in written:
        say(f"wrote {path}")


def command(arguments: argparse.Namespace) -> str:
    """The call that measures the same again, without the files it writes."""
    parts, parser = ["python", "scripts/bench_peers.py"], make_parser()
    for name in ("networks", "batch_sizes", "threads", "peers", "rounds", "only"):
        value = getattr(arguments, name)
        text = ",".join(map(str, value)) if isinstance(value, list) else value
        if text != parser.get_default(name):
            parts += [f"--{name.replace('_', '-')}", str(text)]
    return shlex.join(parts)


if __name__ == "__main__":
    main()
