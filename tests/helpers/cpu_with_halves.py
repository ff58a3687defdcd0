"""A CPU that computes in 16 bits as the CUDA kernels do, fast enough to train real networks.

A kernel gets copies in float32 of its arrays of 16 bits, and what it writes is rounded once. The kernels in
plain ``xp`` do so on every device that has 16 bits; here the compiled kernels of the CPU do it too.
"""

import inspect
from functools import wraps

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from backends import graph
from backends.cpu.backend import CpuBackend
from backends.cpu.kernels import CompiledKernels
from backends.dtypes import is_half
from backends.kernels.base import KernelSet
from backends.kernels.contract import Kernels
from backends.kernels.fused import FusedKernels
from backends.kernels.halves import NATIVE
from backends.memory import require_product

OUTPUTS = {"out", "dx", "addend_grad", "out_weight"}
"""What a kernel may write in 16 bits. A kernel that has none of these arguments works in place."""


class CpuWithHalves(CpuBackend):
    """The CPU with kernels, "compiled" or "portable", that take arrays of 16 bits."""

    has_halves = True

    def compiled_kernels(self):
        super().compiled_kernels()  # raises DeviceUnavailable if nothing can be compiled
        return RoundingKernels

    def matmul(self, a, b, out, accumulate=False):
        if not is_half(a):
            return super().matmul(a, b, out, accumulate)
        require_product(a, b, out)
        with np.errstate(all="ignore"):  # a device does not warn
            product = np.matmul(a.astype(np.float32), b.astype(np.float32))
            out[...] = product + out.astype(np.float32) if accumulate else product
        return out


class RoundingKernels(CompiledKernels, records_launches=True):
    """The compiled kernels of the CPU, which round where the CUDA kernels do."""

    def conv2d_moments(self, x, *further):
        # on a GPU these are the moments of the rounded numbers
        kernels = FusedKernels if is_half(x) else CompiledKernels
        kernels.conv2d_moments(self, x, *further)


def in_float32(kernel):
    """Let a kernel, a method of a kernel set, take arrays of 16 bits."""
    _, *names = inspect.signature(kernel).parameters
    written = OUTPUTS.intersection(names) or set(names)

    @wraps(kernel)
    def called(self, *arguments, **named):
        given = dict(zip(names, arguments, strict=False)) | named
        if any(isinstance(value, np.ndarray) and is_half(value) for value in given.values()):
            graph.launch(_compute, kernel, self, given, written)
        else:
            kernel(self, *arguments, **named)

    return called


def _compute(kernel, kernels, given, written):
    copies, arguments = {}, dict(given)
    for name, value in given.items():
        if isinstance(value, np.ndarray) and is_half(value):
            if id(value) not in copies:
                copies[id(value)] = kernels.scratch(f"float32 copy {len(copies)}", value.shape, np.float32)
            arguments[name] = copies[id(value)]
            if name not in OUTPUTS:
                convert(value, arguments[name])
    kernel(kernels, **arguments)
    for name in written & given.keys():
        if arguments[name] is not given[name]:
            convert(arguments[name], given[name])


for _name, _kernel in inspect.getmembers(CompiledKernels, inspect.isfunction):
    if hasattr(Kernels, _name) and not hasattr(KernelSet, _name) and _name not in (*NATIVE, "conv2d_moments"):
        setattr(RoundingKernels, _name, in_float32(_kernel))


def convert(x, out):
    """``out = x`` for float32 and 16 bits. NumPy's own loops take ten times as long for float16."""
    if np.dtype(np.float16) in (x.dtype, out.dtype) and x.flags.c_contiguous and out.flags.c_contiguous:
        if x.dtype == np.float16:
            _widen(x.view(np.uint16).reshape(-1), out.reshape(-1))
        else:
            _round(x.reshape(-1), out.view(np.uint16).reshape(-1))
    else:
        with np.errstate(all="ignore"):
            out[...] = x


@intrinsic
def _float_of(context, bits):
    def generate(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic
def _half_of(context, number):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@njit("void(uint16[::1], float32[::1])")
def _widen(halves, out):
    for i in range(halves.size):
        out[i] = _float_of(halves[i])


@njit("void(float32[::1], uint16[::1])")
def _round(numbers, out):
    for i in range(numbers.size):
        out[i] = _half_of(numbers[i])
