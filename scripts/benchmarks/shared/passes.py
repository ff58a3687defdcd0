"""A single layer in both libraries: its output and its two gradients, the same numbers for each."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from backends import Window

TOLERANCE = 1e-4  # of the largest number, in float32
FORWARD, GRAD_INPUT, GRAD_WEIGHT = PASSES = ("forward", "grad input", "grad weight")

Passes = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Numbers:
    """What a layer is given: a batch, its weight, and the gradient of its output; batch first."""

    x: Any
    weight: Any
    dy: Any


class Layer(Protocol):
    """A layer without its bias."""

    layouts: Sequence[str]  # PyTorch's memory formats that make a difference

    def numbers(self, batch_size: int) -> Numbers:
        """Random ones; the same every time."""

    def flops(self, batch_size: int) -> int:
        """Multiplications and additions of each pass."""

    def ours(self, kernels: Any, given: Numbers) -> Passes:
        """Each pass returns an array with the batch last, or the weight's gradient."""

    def theirs(self, layout: str, given: Numbers) -> Passes:
        """PyTorch's passes in one of its memory formats; they return tensors."""


@dataclass(frozen=True)
class Convolution:
    """A convolution of square images."""

    channels: int
    filters: int
    size: int  # height and width of an image
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    groups: int = 1

    layouts = ("contiguous_format", "channels_last")

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{self.channels}→{self.filters} {self.kernel}x{self.kernel} on {self.size}{stride}{groups}"

    @property
    def output_size(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    def numbers(self, batch_size: int) -> Numbers:
        """Images (N, C, H, W), a weight (O, C/groups, K, K) and a gradient (N, O, OH, OW)."""
        return _random(
            (batch_size, self.channels, self.size, self.size),
            (self.filters, self.channels // self.groups, self.kernel, self.kernel),
            (batch_size, self.filters, self.output_size, self.output_size),
        )

    def flops(self, batch_size: int) -> int:
        """As if no tap lay in the padding."""
        taps = self.channels // self.groups * self.kernel**2
        return 2 * taps * self.filters * self.output_size**2 * batch_size

    def ours(self, kernels: Any, given: Numbers) -> Passes:
        """The kernels for convolution."""
        size, stride, padding = ((n, n) for n in (self.kernel, self.stride, self.padding))
        window, weight, groups = Window(size, stride, padding), given.weight, self.groups
        x, dy = batch_last(given.x), batch_last(given.dy)
        return _with_outputs(
            (kernels.conv2d, (x, weight), np.empty_like(dy), (window, groups)),
            (kernels.conv2d_grad_input, (dy, weight), np.empty_like(x), (window, groups)),
            (kernels.conv2d_grad_weight, (x, dy), np.empty_like(weight), (window, groups)),
        )

    def theirs(self, layout: str, given: Numbers) -> Passes:
        """A gradient each, as autograd computes it."""
        import torch

        arrays = map(torch.tensor, (given.x, given.weight, given.dy))
        x, weight, dy = (array.contiguous(memory_format=getattr(torch, layout)) for array in arrays)
        stride, padding, dilation = [self.stride] * 2, [self.padding] * 2, [1, 1]

        def back(*wanted: bool) -> Any:
            arguments = dy, x, weight, None, stride, padding, dilation, False, [0, 0], self.groups
            return torch.ops.aten.convolution_backward(*arguments, [*wanted, False])

        return {
            FORWARD: lambda: torch.nn.functional.conv2d(
                x, weight, None, stride, padding, dilation, self.groups
            ),
            GRAD_INPUT: lambda: back(True, False)[0],
            GRAD_WEIGHT: lambda: back(False, True)[1],
        }


@dataclass(frozen=True)
class Product:
    """A dense layer."""

    inputs: int
    outputs: int

    layouts = ("contiguous_format",)

    def __str__(self) -> str:
        return f"{self.inputs}→{self.outputs}"

    def numbers(self, batch_size: int) -> Numbers:
        """Samples (N, C), a weight (O, C) and a gradient (N, O)."""
        return _random((batch_size, self.inputs), (self.outputs, self.inputs), (batch_size, self.outputs))

    def flops(self, batch_size: int) -> int:
        """The same for each pass."""
        return 2 * self.inputs * self.outputs * batch_size

    def ours(self, kernels: Any, given: Numbers) -> Passes:
        """The three products of ``cnn.Dense``."""
        x, dy, weight = batch_last(given.x), batch_last(given.dy), given.weight
        return _with_outputs(
            (kernels.matmul, (weight, x), np.empty_like(dy), ()),
            (kernels.matmul, (weight.T, dy), np.empty_like(x), ()),
            (kernels.matmul, (dy, x.T), np.empty_like(weight), ()),
        )

    def theirs(self, layout: str, given: Numbers) -> Passes:
        """The three products of ``nn.Linear``."""
        import torch

        x, weight, dy = map(torch.tensor, (given.x, given.weight, given.dy))
        return {
            FORWARD: lambda: torch.nn.functional.linear(x, weight),
            GRAD_INPUT: lambda: dy @ weight,
            GRAD_WEIGHT: lambda: dy.T @ x,
        }


def batch_last(array: Any) -> Any:
    """(N, ...) -> (..., N), contiguous."""
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def require_same(what: str, wanted: Iterable[str], ours: Passes, theirs: Mapping[str, Passes]) -> None:
    """End the program unless our passes and those in all of PyTorch's layouts give the same numbers."""
    for name in wanted:
        found = ours[name]()
        for layout, passes in theirs.items():
            expected = passes[name]().numpy()
            expected = expected if name == GRAD_WEIGHT else batch_last(expected)
            apart = float(np.abs(found - expected).max() / np.abs(expected).max())
            if not apart <= TOLERANCE:  # NaN is not
                sys.exit(
                    f"{what}, {name}: ours and PyTorch's ({layout}) are {apart:.1e} of the largest number "
                    f"apart, expected at most {TOLERANCE:.0e}, so nothing is timed"
                )


def limit_pytorch(threads: int) -> None:
    """Let PyTorch use so many threads; end the program if it is not installed."""
    try:
        import torch
    except ImportError:
        sys.exit("this benchmark compares with PyTorch, which is not installed: pip install torch")
    torch.set_num_threads(threads)


def _random(*shapes: tuple[int, ...]) -> Numbers:
    random = np.random.default_rng(0)
    return Numbers(*(random.standard_normal(shape).astype(np.float32) for shape in shapes))


def _with_outputs(*calls: tuple[Callable[..., None], tuple[Any, ...], Any, tuple[Any, ...]]) -> Passes:
    """Functions that call a kernel and return what it wrote."""

    def passing(kernel: Callable[..., None], given: tuple[Any, ...], out: Any, how: tuple[Any, ...]) -> Any:
        return lambda: (kernel(*given, out, *how), out)[1]

    return {name: passing(*call) for name, call in zip(PASSES, calls, strict=True)}
