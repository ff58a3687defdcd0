"""Ours beside PyTorch, JAX and the notebook's loops: python scripts/benchmarks/bench_peers.py [--help].

Training steps and inference of the same networks, from the same weights and on the same batches, timed in
turns after a check that all compute the same; on the CPU, or with --device cuda on a GPU. Who is not
installed is absent: pip install torch jax.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from peers import memory, scaling
from peers.agreement import Job
from peers.contenders import CONTENDERS, LOOKED_INTO, TAKING_PART
from peers.networks import MEASURED, NETWORKS
from peers.page import make_page, make_tables
from peers.processes import Processes, measure_growth, say
from peers.results import Memory, Results, describe_machine
from peers.task import PHASES, Setting
from shared.options import Parser, listed, one_of, whole

import backends
from backends.cpu.threads import available_cores
from cnn.comparison.plot import require_drawing
from cnn.support.errors import ArgumentError, DeviceUnavailable, DisagreementError
from cnn.support.files import write_json, write_whole
from cnn.support.libraries import require
from cnn.support.outputs import JSON, MARKDOWN, require_output
from cnn.support.terminal import screen_width, write_line

CORES = available_cores()
THREADS = sorted({1, CORES})
BATCH_SIZES = (1, 32, 128, 512)
CUDA_BATCH_SIZES = {"notebook": 128, "lenet5": 512, "example": 128, "vgg": 512}


def main() -> None:
    """Check, time, and show what was found."""
    parser = make_parser()
    arguments = parser.parse_args()
    try:
        require_device(arguments)
        written = require_places(arguments)
        results = run(arguments)
        write_line(make_tables(results, screen_width(sys.stdout)))
        write_files(results, arguments)
        for sentence in written:
            say(sentence)
    except (ArgumentError, DeviceUnavailable) as error:
        parser.error(str(error))
    except DisagreementError as error:
        parser.exit(1, f"error: {error}\n")
    except BrokenProcessPool:
        parser.exit(1, "error: a process was killed, probably for its memory: take smaller batches\n")


def make_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)

    def add(name: str, each: Callable[[str], object], meaning: str, default: str) -> None:
        parser.add_argument(name, type=listed(each), help=f"{meaning} (default: {default})")

    def joined(values: Iterable[object]) -> str:
        return ",".join(map(str, values))

    paired = joined(CUDA_BATCH_SIZES[name] for name in MEASURED["cuda"])
    parser.add_argument("--device", choices=MEASURED, default="cpu", help="where (default: cpu)")
    networks = f"{joined(MEASURED['cpu'])}; on cuda {joined(MEASURED['cuda'])}"
    add("--networks", one_of(NETWORKS), f"which are measured, of {joined(NETWORKS)}", networks)
    add("--batch-sizes", whole(), "images a step", f"{joined(BATCH_SIZES)}; on cuda {paired}, one a network")
    add("--threads", whole(CORES), "how many each library may use, on the CPU", joined(THREADS))
    peers = f"{joined(TAKING_PART['cpu'])}; on cuda {joined(TAKING_PART['cuda'])}"
    add("--peers", one_of(CONTENDERS), "who takes part", peers)
    parser.add_argument("--tf32", action="store_true", help="let all use TF32 in products, on cuda")
    parser.add_argument("--rounds", type=whole(), default=21, help="how often all take turns (default: 21)")
    parser.add_argument("--only", choices=PHASES, help="leave the other out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, for programs")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page for the documentation")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.png",
        help="also measure and draw what an image costs on the CPU over batch size, image size, channels and "
        "threads: a PNG, and an SVG next to it",
    )
    return parser


def require_device(arguments: argparse.Namespace) -> None:
    """Raise ArgumentError where an option is not for the device, DeviceUnavailable where that is not here."""
    if arguments.device == "cpu":
        if arguments.tf32:
            raise ArgumentError("--tf32 is about products on a GPU: leave it out, or add --device cuda")
        require("threadpoolctl", "to limit threads")
        return
    if arguments.threads:
        raise ArgumentError("--threads is about libraries on the CPU: leave it out with --device cuda")
    if arguments.plot:
        raise ArgumentError("--plot draws measurements on the CPU: leave it out with --device cuda")
    for name in arguments.peers or []:
        if name not in TAKING_PART["cuda"]:
            raise ArgumentError(
                f"--peers has {name!r}, which is measured on the CPU alone: "
                f"expected some of {', '.join(TAKING_PART['cuda'])} with --device cuda"
            )
    backends.get(arguments.device)


def require_places(arguments: argparse.Namespace) -> list[str]:
    """What to say once the files that are asked for are written; ArgumentError if one could not be."""
    written = [require_output(arguments.json, JSON)] if arguments.json else []
    written += require_drawing(arguments.plot) if arguments.plot else []
    return written + ([require_output(arguments.markdown, MARKDOWN)] if arguments.markdown else [])


def run(arguments: argparse.Namespace) -> Results:
    """Prove everything, then measure everything; DisagreementError where something is apart."""
    phases = [arguments.only] if arguments.only else PHASES
    networks = arguments.networks or MEASURED[arguments.device]
    chosen = arguments.peers or TAKING_PART[arguments.device]
    names = [name for name in CONTENDERS if name in chosen]
    jobs = [Job(setting, names) for setting in make_settings(arguments, networks)]
    panels = scaling.make_panels(CORES) if arguments.plot else []
    drawn_names = [name for name in names if name in LOOKED_INTO]
    memory_counts = arguments.device == "cpu" and "training" in phases  # a process's own, not a GPU's
    drawn = [Job(setting, drawn_names) for panel in panels for setting in panel.settings.values()]
    with Processes(job.setting.threads for job in jobs + drawn) as processes:
        return Results(
            machine=describe_machine(arguments.device, arguments.tf32),
            rounds=arguments.rounds,
            absent=processes.prove(jobs + drawn),
            figures=processes.measure(jobs, phases, arguments.rounds),
            memory=measure_memory(networks, names) if memory_counts else [],
            scaling=processes.measure(drawn, ["training"], arguments.rounds),
        )


def make_settings(arguments: argparse.Namespace, networks: Sequence[str]) -> list[Setting]:
    """All that is measured: on a GPU each network at its own batch size, unless some are asked for."""
    if arguments.device == "cpu":
        return [
            Setting(NETWORKS[network], batch_size, threads)
            for network in networks
            for batch_size in sorted(arguments.batch_sizes or BATCH_SIZES)
            for threads in arguments.threads or THREADS
        ]
    return [
        Setting(NETWORKS[network], batch_size, None, arguments.device, arguments.tf32)
        for network in networks
        for batch_size in sorted(arguments.batch_sizes or [CUDA_BATCH_SIZES[network]])
    ]


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
    """Write what was asked for."""
    if arguments.json:
        write_json(arguments.json, results.as_plain())
    if arguments.plot:
        scaling.draw(scaling.make_panels(CORES), results.scaling, arguments.plot)
    if arguments.markdown:
        page = make_page(results, command(arguments), arguments.plot, arguments.markdown)
        write_whole(arguments.markdown, page.encode())


def command(arguments: argparse.Namespace) -> str:
    """The call that measures the same again, without the files it writes."""
    parts, parser = ["python", "scripts/benchmarks/bench_peers.py"], make_parser()
    for name in ("device", "networks", "batch_sizes", "threads", "peers", "rounds", "only"):
        value = getattr(arguments, name)
        if value != parser.get_default(name):
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            parts += [f"--{name.replace('_', '-')}", text]
    if arguments.tf32:
        parts.append("--tf32")
    return shlex.join(parts)


if __name__ == "__main__":
    main()
