"""Training in two processes over TCP: python scripts/benchmarks/bench_tcp.py [--help].

Two network namespaces of this machine are joined by a cable that is limited to 1 Gbit/s with a delay of 0.1
ms, as if they were two machines. This needs Linux, root, the commands ip and tc, and MPICH. LeNet-5 trains in
one process with one thread, and in two such processes, one in each namespace. First, both must give the same
weights. Then they take turns, and the bytes on the cable are counted. The machine should have nothing else to
do. The page in the documentation is written with

    --json docs/measurements/distributed.json --page docs/measurements/distributed.md
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from shared.machine import describe_machine
from shared.options import Parser, listed, whole
from shared.progress import say
from tcp_parts.measured import measure
from tcp_parts.page import around_text, as_plain, make_text, write_text
from tcp_parts.wire import CommandFailed, NoWire, Wire

import backends
from cnn.support.errors import ArgumentError, DisagreementError
from cnn.support.files import write_json
from cnn.support.outputs import JSON, require_output
from cnn.support.terminal import write_line
from cnn.training.distributed.mpiexec import Mpiexec

RATE, DELAY = 1e9, 1e-4  # bits a second, seconds in one direction
BATCH_SIZES, ROUNDS, STEPS = (128, 512, 2048), 7, 100


def main() -> None:
    """Measure, and write what was found."""
    parser = make_parser()
    arguments = parser.parse_args()
    try:
        written = [require_output(arguments.json, JSON)] if arguments.json else []
        if arguments.page:
            around_text(arguments.page)  # before anything is measured
            written.append(f"wrote {arguments.page}")
        mpiexec = require_mpich()
        how = arguments.rounds, arguments.steps
        with Wire(RATE, DELAY) as wire:
            found = measure(wire, mpiexec, arguments.batch_sizes, *how)
        machine = describe_machine(backends.get("cpu"))
        text = make_text(machine, *found, *how)
        write_line(text)
        if arguments.json:
            write_json(arguments.json, as_plain(machine, *found, *how))
        if arguments.page:
            write_text(arguments.page, text)
        for sentence in written:
            say(sentence)
    except NoWire as reason:
        parser.exit(0, f"skipped: {reason}\n")
    except ArgumentError as error:
        parser.error(str(error))
    except (CommandFailed, DisagreementError) as error:
        parser.exit(1, f"error: {error}\n")


def make_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)

    def shown(values: object) -> str:
        return str(values).strip("()").replace(" ", "")

    sizes = f"images a step (default: {shown(BATCH_SIZES)})"
    parser.add_argument("--batch-sizes", type=listed(whole()), default=list(BATCH_SIZES), help=sizes)
    rounds = f"how often one process and two take turns (default: {ROUNDS})"
    parser.add_argument("--rounds", type=whole(), default=ROUNDS, help=rounds)
    steps = f"steps that are timed in each turn (default: {STEPS})"
    parser.add_argument("--steps", type=whole(), default=STEPS, help=steps)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, for programs")
    page = "write the text to this page, between the lines that mark its place"
    parser.add_argument("--page", type=Path, metavar="FILE", help=page)
    return parser


def require_mpich() -> Path:
    """The launcher; ArgumentError if it is of another MPI, which takes other options."""
    mpiexec = Mpiexec.find()
    if mpiexec.is_open_mpi:
        raise ArgumentError(f"{mpiexec.path} is Open MPI's, this benchmark needs MPICH's: pip install mpich")
    return mpiexec.path


if __name__ == "__main__":
    main()
