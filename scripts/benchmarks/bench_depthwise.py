"""Depthwise convolution next to PyTorch's: python scripts/benchmarks/bench_depthwise.py [--help].

For each shape, the output and both gradients are first compared. Then both libraries take turns, and the
figure is the ratio of their shortest times, PyTorch's over ours. It is the processor's time of all threads:
other work on the machine counts for neither. PyTorch runs in the faster one of its two memory formats.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from shared.options import Parser, whole
from shared.passes import PASSES, Convolution, limit_pytorch, require_same

import backends
from backends.cpu.threads import available_cores

BATCH_SIZE = 128
LAYERS = [
    Convolution(64, 64, 32, padding=1, groups=64),
    Convolution(64, 64, 32, stride=2, padding=1, groups=64),
    Convolution(32, 64, 32, padding=1, groups=32),
    Convolution(128, 128, 16, stride=2, padding=1, groups=128),
    Convolution(256, 256, 8, padding=1, groups=256),
]


def shortest(contenders: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The shortest processor time of each in ``rounds`` rounds, in which they take turns."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for own, contender in zip(times, contenders, strict=True):
            contender()  # brings its own numbers into the caches
            start = time.process_time()
            for _ in range(3):
                contender()
            own.append((time.process_time() - start) / 3)
    return [min(own) for own in times]


def compare(layer: Convolution, kernels: Any, rounds: int) -> None:
    """Print the ratio of each pass."""
    given = layer.numbers(BATCH_SIZE)
    ours = layer.ours(kernels, given)
    theirs = {layout: layer.theirs(layout, given) for layout in layer.layouts}
    require_same(str(layer), PASSES, ours, theirs)
    for name in PASSES:
        mine, *others = shortest([ours[name], *(passes[name] for passes in theirs.values())], rounds)
        best = min(others)
        print(f"{layer}: {name} {1e3 * mine:.1f} ms, PyTorch {1e3 * best:.1f} ms, ratio {best / mine:.2f}")


def main() -> None:
    """Compare all shapes."""
    parser = Parser(__doc__)
    cores, add = available_cores(), parser.add_argument
    add("--threads", type=whole(cores), default=min(2, cores), help="of both libraries (default: up to 2)")
    add("--rounds", type=whole(), default=9, help="rounds for each pass (default: 9)")
    options = parser.parse_args()
    limit_pytorch(options.threads)
    kernels = backends.get("cpu", threads=options.threads).kernels
    for layer in LAYERS:
        compare(layer, kernels, options.rounds)


if __name__ == "__main__":
    main()
