"""Ours next to PyTorch, JAX and the notebook's loops: python scripts/benchmarks/bench_peers.py [--help].

Training steps and inference of the same networks, from the same weights and on the same batches, timed in
turns after a check that all compute the same; on the CPU, or with --device cuda on a GPU. A library that is
not installed is left out: pip install torch jax. The machine should have nothing else to do.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from peers import scaling
from peers.agreement import Job
from peers.avx2 import hold_to_avx2
from peers.contenders import CONTENDERS, CPU_ONLY, LOOKED_INTO, TAKING_PART
from peers.networks import MEASURED, NETWORKS
from peers.page import make_page, make_tables
from peers.processes import Processes, measure_growth
from peers.results import Memory, Results, describe_machine
from peers.task import PHASES, Setting
from shared.options import Parser, listed, one_of, whole
from shared.progress import say

import backends
from backends.cpu.threads import available_cores
from cnn.comparison.plot import require_drawing
from cnn.support.errors import ArgumentError, DeviceUnavailable, DisagreementError
from cnn.support.files import write_json, write_whole
from cnn.support.libraries import require
from cnn.support.outputs import JSON, MARKDOWN, require_output
from cnn.support.terminal import screen_width, write_line

CORES = available_cores()
ROUNDS = 11
BATCH_SIZES = {  # in training on the CPU; inference is of INFERRED images
    "notebook": (1, 128),
    "lenet5": (1, 128),
    "example": (1, 128),
    "airbench94": (512,),
    "airbench93": (512,),
}
USUAL_BATCH_SIZES = (128,)  # of other networks
INFERRED = (128,)
DTYPES = ("float32", "bfloat16")
CUDA_BATCH_SIZES = {"lenet5": (512,), "vgg": (512,)}  # in training and inference


def main() -> None:
    """Check, time, and show what was found."""
    parser = make_parser()
    arguments = parser.parse_args()
    try:
        require_device(arguments)
        if arguments.avx2:
            hold_to_avx2()
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

    parser.add_argument("--device", choices=MEASURED, default="cpu", help="where (default: cpu)")
    networks = f"{joined(MEASURED['cpu'])}; on cuda {joined(MEASURED['cuda'])}"
    add("--networks", one_of(NETWORKS), f"which are measured, of {joined(NETWORKS)}", networks)
    add("--batch-sizes", whole(), "images a step", "each network's own; inference on the CPU: 128")
    add("--threads", whole(CORES), "how many each library may use, on the CPU", str(CORES))
    peers = f"{joined(TAKING_PART['cpu'])}; on cuda {joined(TAKING_PART['cuda'])}"
    add("--peers", one_of(CONTENDERS), f"who takes part, of {joined(CONTENDERS)}", peers)
    parser.add_argument("--tf32", action="store_true", help="let all use TF32 in products, on cuda")
    dtype = "of activations and products; bfloat16 on cuda (default: float32)"
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help=dtype)
    avx2 = "hold all libraries to AVX2, on an x86 processor that has AVX-512 too"
    parser.add_argument("--avx2", action="store_true", help=avx2)
    rounds = f"how often all take turns (default: {ROUNDS})"
    parser.add_argument("--rounds", type=whole(), default=ROUNDS, help=rounds)
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
    """Raise ArgumentError if an option is not for the device, DeviceUnavailable if the device is not here."""
    if arguments.device == "cpu":
        if arguments.tf32:
            raise ArgumentError("--tf32 is about products on a GPU: leave it out, or add --device cuda")
        if arguments.dtype != "float32":
            raise ArgumentError(
                f"--dtype {arguments.dtype} is computed on a GPU: leave it out, or add --device cuda"
            )
        require("threadpoolctl", "to limit threads")
        return
    if arguments.threads:
        raise ArgumentError("--threads is about libraries on the CPU: leave it out with --device cuda")
    if arguments.plot:
        raise ArgumentError("--plot draws measurements on the CPU: leave it out with --device cuda")
    if arguments.avx2:
        raise ArgumentError("--avx2 is about libraries on the CPU: leave it out with --device cuda")
    for name in arguments.peers or []:
        if name in CPU_ONLY:
            others = ", ".join(other for other in CONTENDERS if other not in CPU_ONLY)
            raise ArgumentError(
                f"--peers has {name!r}, which is measured on the CPU alone: "
                f"expected some of {others} with --device cuda"
            )
    if arguments.tf32 and arguments.dtype != "float32":
        raise ArgumentError(
            f"--tf32 is about products of float32: leave it out with --dtype {arguments.dtype}"
        )
    backends.get(arguments.device).require_support(arguments.dtype)


def require_places(arguments: argparse.Namespace) -> list[str]:
    """What to say once the files that are asked for are written; ArgumentError if one could not be."""
    written = [require_output(arguments.json, JSON)] if arguments.json else []
    written += require_drawing(arguments.plot) if arguments.plot else []
    return written + ([require_output(arguments.markdown, MARKDOWN)] if arguments.markdown else [])


def run(arguments: argparse.Namespace) -> Results:
    """Prove everything, then measure everything; DisagreementError where something is apart."""
    jobs = make_jobs(arguments)
    panels = scaling.make_panels(CORES) if arguments.plot else []
    names = [name for name in chosen(arguments) if name in LOOKED_INTO]
    memory_counts = arguments.device == "cpu"  # a process's own, not a GPU's
    drawn = [Job(setting, names, ["training"]) for panel in panels for setting in panel.settings.values()]
    with Processes(job.setting.threads for job in jobs + drawn) as processes:
        return Results(
            machine=describe_machine(arguments.device, arguments.tf32, arguments.avx2),
            rounds=arguments.rounds,
            absent=processes.prove(jobs + drawn),
            figures=processes.measure(jobs, arguments.rounds),
            memory=measure_memory(jobs, names) if memory_counts else [],
            scaling=processes.measure(drawn, arguments.rounds),
            dtype=arguments.dtype,
        )


def chosen(arguments: argparse.Namespace) -> list[str]:
    """Who takes part, in the order of the tables."""
    names = arguments.peers or TAKING_PART[arguments.device]
    return [name for name in CONTENDERS if name in names]


def make_jobs(arguments: argparse.Namespace) -> list[Job]:
    """All that is measured: each network at its own batch sizes, unless some are asked for."""
    where = [(n, "cpu", False, "float32") for n in arguments.threads or [CORES]]
    if arguments.device != "cpu":
        where = [(None, arguments.device, arguments.tf32, arguments.dtype)]
    jobs = []
    for network in arguments.networks or MEASURED[arguments.device]:
        phases: dict[int, list[str]] = {}
        for phase in [arguments.only] if arguments.only else PHASES:
            for size in arguments.batch_sizes or batch_sizes(arguments.device, network, phase):
                phases.setdefault(size, []).append(phase)
        for size, place in product(sorted(phases), where):
            jobs.append(Job(Setting(NETWORKS[network], size, *place), chosen(arguments), phases[size]))
    return jobs


def batch_sizes(device: str, network: str, phase: str) -> Sequence[int]:
    """The network's own."""
    if device != "cpu":
        return CUDA_BATCH_SIZES.get(network, USUAL_BATCH_SIZES)
    return INFERRED if phase == "inference" else BATCH_SIZES.get(network, USUAL_BATCH_SIZES)


def measure_memory(jobs: Sequence[Job], names: Sequence[str]) -> list[Memory]:
    """What the process grows by in each network's training with the most images a step, with all cores."""
    trained = [job.setting for job in jobs if "training" in job.phases]
    largest = {setting.network.name: setting for setting in sorted(trained, key=lambda s: s.batch_size)}
    found = []
    for setting, name in product(largest.values(), names):
        grown = measure_growth(replace(setting, threads=CORES), name)
        if grown is not None:
            found.append(Memory(setting.network.name, setting.batch_size, name, grown))
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
    for name in ("device", "networks", "batch_sizes", "threads", "peers", "dtype", "rounds", "only"):
        value = getattr(arguments, name)
        if value != parser.get_default(name):
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            parts += [f"--{name.replace('_', '-')}", text]
    parts += [f"--{name}" for name in ("tf32", "avx2") if getattr(arguments, name)]
    return shlex.join(parts)


if __name__ == "__main__":
    main()
