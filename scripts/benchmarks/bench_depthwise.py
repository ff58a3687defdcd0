"""Depthwise convolution next to PyTorch's: python scripts/benchmarks/bench_depthwise.py [--help].

For each shape, the output and both gradients are first compared. Then both libraries take turns, and the
figure is the ratio of their shortest times, PyTorch's over ours. It is the processor's time of all threads:
other work on the machine counts for neither. PyTorch runs in the faster one of its two memory formats.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import backends
from backends import Window

TOLERANCE = 1e-4  # of the largest number, in float32
PASSES = ("forward", "weight gradient", "input gradient")


@dataclass(frozen=True)
class Shape:
    """A 3x3 depthwise convolution with padding 1."""

    channels: int
    size: int
    batch: int
    stride: int
    multiplier: int = 1

    def __str__(self) -> str:
        filters = f", {self.multiplier} filters a channel" if self.multiplier > 1 else ""
        image = f"{self.channels} channels, {self.size}x{self.size}{filters}"
        return f"{image}, batch {self.batch}, stride {self.stride}"


SHAPES = [
    Shape(64, 32, 128, 1),
    Shape(64, 32, 128, 2),
    Shape(32, 32, 128, 1, multiplier=2),
    Shape(128, 16, 128, 2),
    Shape(256, 8, 128, 1),
]


def batch_last(array: Any) -> Any:
    """(N, ...) -> (..., N), contiguous."""
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def ours(shape: Shape, threads: int, x: Any, weight: Any, dy: Any) -> dict[str, Callable[[], Any]]:
    """Our three passes; each returns an array with the batch last, or the weight's gradient."""
    kernels = backends.get("cpu", threads=threads).kernels
    window, groups = Window((3, 3), (shape.stride, shape.stride), (1, 1)), shape.channels
    x, dy = batch_last(x), batch_last(dy)
    y, dw, dx = np.empty_like(dy), np.empty_like(weight), np.empty_like(x)
    passes = (
        lambda: (kernels.conv2d(x, weight, y, window, groups), y)[1],
        lambda: (kernels.conv2d_grad_weight(x, dy, dw, window, groups), dw)[1],
        lambda: (kernels.conv2d_grad_input(dy, weight, dx, window, groups), dx)[1],
    )
    return dict(zip(PASSES, passes, strict=True))


def theirs(shape: Shape, layout: Any, x: Any, weight: Any, dy: Any) -> dict[str, Callable[[], Any]]:
    """PyTorch's three passes in one of its memory formats."""
    import torch

    x, dy = (torch.tensor(array).contiguous(memory_format=layout) for array in (x, dy))
    weight, window = torch.tensor(weight), ([shape.stride] * 2, [1, 1], [1, 1])

    def back(*wanted: bool) -> Any:
        arguments = dy, x, weight, None, *window, False, [0, 0], shape.channels, [*wanted, False]
        return torch.ops.aten.convolution_backward(*arguments)

    passes = (
        lambda: torch.nn.functional.conv2d(x, weight, None, *window, shape.channels),
        lambda: back(False, True)[1],
        lambda: back(True, False)[0],
    )
    return dict(zip(PASSES, passes, strict=True))


def require_same(what: str, found: Any, expected: Any) -> None:
    """End the program unless two arrays agree."""
    apart = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not apart <= TOLERANCE:
        sys.exit(f"{what}: the results are {apart:.1e} of the largest number apart, so nothing is timed")


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


def compare(shape: Shape, threads: int, rounds: int) -> None:
    """Print the ratio of each pass."""
    import torch

    random = np.random.default_rng(0)
    filters, out = shape.channels * shape.multiplier, -(-shape.size // shape.stride)
    x, weight, dy = (
        random.standard_normal(sizes).astype(np.float32)
        for sizes in (
            (shape.batch, shape.channels, shape.size, shape.size),
            (filters, 1, 3, 3),
            (shape.batch, filters, out, out),
        )
    )
    own = ours(shape, threads, x, weight, dy)
    layouts = [theirs(shape, getattr(torch, name), x, weight, dy) for name in LAYOUTS]
    for name in PASSES:
        expected = layouts[0][name]().numpy()
        expected = expected if name == "weight gradient" else batch_last(expected)
        require_same(f"{shape}, {name}", own[name](), expected)
        mine, *others = shortest([own[name], *(layout[name] for layout in layouts)], rounds)
        best = min(others)
        print(f"{shape}: {name} {1e3 * mine:.1f} ms, PyTorch {1e3 * best:.1f} ms, ratio {best / mine:.2f}")


LAYOUTS = ("contiguous_format", "channels_last")


def main() -> None:
    """Compare all shapes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of both libraries (default: 2)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds for each pass (default: 9)")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("bench_depthwise compares with PyTorch, which is not installed: make peers")
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    for shape in SHAPES:
        compare(shape, options.threads, options.rounds)


if __name__ == "__main__":
    main()
