"""CUDA C++ on the host: CuPy's RawModule, with g++ in place of NVRTC and arrays of the stand-in device."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

HEADER = Path(__file__).parent / "cuda_on_host" / "cuda_on_host.h"
COMPILER = shutil.which("g++")
MISSING = None if COMPILER else "NO CUDA KERNEL WAS RUN ON THE HOST, which has no g++"
needed = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

Dimensions = ctypes.c_uint * 3


class RawModule:
    """The kernels in ``code``; ``backwards`` runs threads and blocks the other way round."""

    backwards = False

    def __init__(self, *, code, options=()):
        definitions = tuple(option for option in options if option.startswith("-D"))
        assert set(options) - set(definitions) <= {"-std=c++17"}
        self._library = _build(code, definitions)

    def get_function(self, name):
        launch = getattr(self._library, f"launch_{name}")
        expected = getattr(self._library, f"parameters_{name}")()

        def kernel(grid, block, args, *, shared_mem=0):
            if len(args) != expected:  # CUDA would read whatever lies there
                raise TypeError(f"{name} has {expected} parameters, {len(args)} arguments were given")
            if max(grid[1:], default=1) > 65535:
                raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
            values = [_value(argument) for argument in args]
            pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
            launch(_three(grid), _three(block), shared_mem, int(RawModule.backwards), pointers)

        return kernel


def _three(sizes):
    return Dimensions(*sizes, *[1] * (3 - len(sizes)))


def _value(argument):
    """What CuPy hands to a kernel for an argument."""
    if argument is None:
        return ctypes.c_void_p(0)
    if type(argument) is int:
        return ctypes.c_longlong(argument)
    if type(argument) is float:
        return ctypes.c_double(argument)
    if hasattr(getattr(argument, "data", None), "ptr"):  # an array of a device
        return ctypes.c_void_p(argument.data.ptr)
    if isinstance(argument, np.ndarray) and argument.size == 1:
        return (ctypes.c_char * argument.nbytes).from_buffer_copy(argument)  # by value
    raise TypeError(f"a kernel's argument is a {type(argument)}: CuPy would pass something unexpected")


@cache
def _build(code, definitions):
    names = re.findall(r"__global__ void (\w+)\(", _run("-E", "-P", "-", *definitions, given=code))
    launchers = "\n".join(f"LAUNCHER({name})" for name in names)
    return library(f"{HEADER.read_text()}\n{code}\n{launchers}\n", *definitions, "-Wno-unknown-pragmas")


def library(source, *options):
    """C++ as a library, compiled once for all processes that use it."""
    assert COMPILER, MISSING
    key = hashlib.sha256("\0".join([source, *options]).encode()).hexdigest()[:24]
    place = Path(tempfile.gettempdir()) / f"xpcnn-host-cuda-{os.getuid()}" / f"{key}.so"
    if not place.exists():
        place.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            built = Path(folder) / "built.so"
            _run("-O2", "-ffp-contract=off", "-shared", "-fPIC", "-o", built, *options, "-", given=source)
            built.rename(place)
    return ctypes.CDLL(str(place))


def _run(*arguments, given):
    command = [COMPILER, "-std=c++17", "-U_FORTIFY_SOURCE", "-x", "c++", *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
