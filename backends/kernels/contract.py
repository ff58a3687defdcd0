"""Every kernel: what it computes, and the shapes of its arrays.

The batch is the last axis: ``x`` (C, H, W, N), ``y`` (O, OH, OW, N) or (F, N), ``labels`` and ``losses``
(N,); ``weight`` is (O, C/groups, KH, KW). A kernel writes into arrays that it is given.
Nothing that it allocates outlives the call.

The other kernels are declared in files of their own: arithmetic, batches, activations, normalization, losses
and updates, next to their portable form; and in ``fused.py`` a convolution with what follows it.

A kernel set overrides what it computes faster. Arrays that an override does not support (another dtype, not
contiguous) go to the same kernel of :class:`backends.kernels.PortableKernels`.

In a mixed-precision network, activations, their gradients and the weights of products are bfloat16 or
float16. All other arrays (biases, weights of normalizations, moments, gradients of parameters) are float32,
and so are all sums. Each kernel rounds its results once. A kernel that is composed of others may also round
their intermediate results.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from backends import graph
from backends.kernels.base import KernelSet
from backends.kernels.batches import BatchKernels
from backends.kernels.fused import FusedKernels
from backends.kernels.halves import NATIVE, in_float32
from backends.kernels.losses import LossKernels
from backends.kernels.sampling import Sampling
from backends.kernels.updates import UpdateKernels
from backends.kernels.window import Window
from backends.memory import Array


def _as_one_call(kernel: Callable[..., None]) -> Callable[..., None]:
    @wraps(kernel)
    def called(*arguments: Any, **named: Any) -> None:
        graph.launch(kernel, *arguments, **named)

    return called


class Kernels(BatchKernels, FusedKernels, LossKernels, UpdateKernels):
    """The kernels of one device. All sets have all of them, so a layer never asks what a set can do."""

    def __init_subclass__(cls, records_launches: bool = False) -> None:
        """Let a recording store each kernel of the set as one call, and the kernels take 16 bits.

        A set that ``records_launches`` adds what its kernels do to a recording itself. It passes arrays of
        16 bits that it does not support to the portable kernels.
        """
        declared = set() if records_launches else _declared()
        for base in cls.__mro__:
            if base is not cls and issubclass(base, Kernels):
                break  # another set, whose kernels are wrapped already
            for name, kernel in list(vars(base).items()):
                if name in declared and inspect.isfunction(kernel):
                    called = _as_one_call(kernel)
                    setattr(cls, name, called if name in NATIVE else in_float32(called))
                    declared.remove(name)
        for name in declared:
            if getattr(cls, name) is getattr(Kernels, name):  # composed of others, each of which would round
                setattr(cls, name, in_float32(getattr(cls, name)))

    # --- convolution

    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        """``out`` (O, OH, OW, N) = the cross-correlation of ``x`` with ``weight``."""
        raise NotImplementedError

    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        """``out`` (O, C/groups, KH, KW) = the gradient of the weight."""
        raise NotImplementedError

    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        """``out`` (C, H, W, N) = the gradient of the input."""
        raise NotImplementedError

    # --- pooling

    def max_pool2d(self, x: Array, out: Array, winner: Array | None, window: Window) -> None:
        """``out`` = each window's maximum, ``winner`` = the tap that it came from (None: not wanted).

        The first maximum in row-major order wins, and NaN wins over every number. ``winner`` has one byte for
        a window of up to 256 taps, else an int32.
        """
        raise NotImplementedError

    def max_pool2d_grad(self, dy: Array, winner: Array, out: Array, window: Window) -> None:
        """``out`` = the gradient of the input: each ``dy`` goes to its window's winner."""
        raise NotImplementedError

    def resample(self, x: Array, out: Array, rows: Sampling, columns: Sampling) -> None:
        """``out`` (C, OH, OW, N) = ``x`` (C, H, W, N) with its rows, and then its columns, resampled.

        Average pooling, padding and enlarging are made of it. Its gradient is the same kernel with both
        samplings transposed.
        """
        raise NotImplementedError


def _declared() -> set[str]:
    """The names of all kernels."""
    functions = inspect.getmembers(Kernels, inspect.isfunction)
    return {name for name, _ in functions if not name.startswith("_") and not hasattr(KernelSet, name)}
