"""Compiles the kernels and runs them on threads."""

import gc
import inspect
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial
from operator import index
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import event, sigutils
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock

from backends import graph
from backends.cpu import threads
from backends.cpu.compiled import kernel_cache
from backends.cpu.compiled.compiler import Compiler, inlined
from backends.cpu.compiled.pool import MOST_ARGUMENTS, launch, pool

# The parameter types of kernels; Numbers have the dtype for which the kernel is compiled.
Numbers, Bytes, Indices, Doubles = "numbers", "bytes", "indices", "doubles"

# NaN and infinity keep their meaning, because pooling uses both
_FAST = {"contract", "nsz", "arcp"}


KERNELS: dict[str, "Kernel"] = {}  # of the modules that have been imported, by their full names
SMALL = 100_000  # elements moved; below this, a second thread does not pay off
MULTIPLICATIONS = 8  # multiplications take as long as moving one element


def thread_count(work: int) -> int:
    """The useful number of threads for moving ``work`` elements."""
    return threads.count() if work >= SMALL else 1


if hasattr(os, "register_at_fork"):
    # a child must not inherit the compiler's lock from a thread that does not exist in it
    os.register_at_fork(before=global_compiler_lock.acquire, after_in_parent=global_compiler_lock.release)
    os.register_at_fork(after_in_child=global_compiler_lock.release)


class Kernel:
    """A function that computes one of many parts, compiled to a C function per dtype on the first call.

    Its parameters are annotated with Numbers, Bytes, Indices or Doubles (pointers), or int; the last two,
    ``part`` and ``parts``, are filled in by the call. C functions are called through
    their addresses instead of being linked, so each is compiled only once.

    With ``reorder``, sums may be computed in any order, as vectorization requires. Without it, formulas that
    could lose precision or overflow are computed exactly as written. Without ``fuse``, a product and a sum
    are rounded apart, as in plain NumPy. ``dtypes`` are those for which it is ever called.
    """

    def __init__(
        self,
        function: Callable[..., None],
        reorder: bool = True,
        fuse: bool = True,
        dtypes: Sequence[str] = ("float32", "float64"),
    ) -> None:
        self.function = function
        self.dtypes = dtypes
        fast = _FAST - (set() if fuse else {"contract", "arcp"}) | ({"reassoc"} if reorder else set())
        self._options = {"error_model": "numpy", "fastmath": fast}
        self._count = len(inspect.signature(function).parameters) - 2
        assert self._count <= MOST_ARGUMENTS, function.__name__
        self._addresses: dict[Any, int] = {}
        self.name = f"{function.__module__}.{function.__name__}"
        KERNELS[self.name] = self

    def __call__(self, dtype: Any, arguments: tuple[Any, ...], parts: int = 1) -> None:
        """Compute all parts, on as many threads."""
        if len(arguments) != self._count:
            raise TypeError(f"{self.function.__name__} takes {self._count} arguments, not {len(arguments)}")
        pool.start(parts)
        values = [a.ctypes.data if isinstance(a, np.ndarray) else index(a) for a in arguments]
        words = np.array(values, dtype=np.intp)
        job = self.address(dtype), words.ctypes.data, len(words), parts, pool.address
        graph.launch(launch, *job, keep=(arguments, words))

    def address(self, dtype: Any) -> int:
        """The address of the C function for ``dtype``."""
        address = self._addresses.get(dtype)
        if address is None:
            rehearsal = graph.rehearsal()
            if rehearsal:
                rehearsal.needed.append((self, dtype))
                return 0
            address = self._addresses[dtype] = self._compile(dtype)
        return address

    @property
    def loaded(self) -> list[Any]:
        """The dtypes whose C functions are in memory."""
        return list(self._addresses)

    def is_ready(self, dtype: Any) -> bool:
        """Whether the C function for ``dtype`` is in memory or on disk."""
        return dtype in self._addresses or self.is_on_disk(dtype)

    def is_on_disk(self, dtype: Any) -> bool:
        """Whether the next process finds the C function for ``dtype``."""
        return self._c_function(dtype).is_cached

    def _c_function(self, dtype: Any) -> "_CFunction":
        kinds = {
            Numbers: types.CPointer(numba.from_dtype(np.dtype(dtype))),
            Bytes: types.CPointer(types.uint8),
            Indices: types.CPointer(types.intp),
            Doubles: types.CPointer(types.float64),
            int: types.intp,
        }
        parameters = inspect.signature(self.function).parameters.values()
        signature = types.void(*(kinds[parameter.annotation] for parameter in parameters))
        c_function = _CFunction(
            self.function, sigutils.normalize_signature(signature), {}, self._options, Compiler
        )
        kernel_cache.attach(c_function, self.function)
        return c_function

    def _compile(self, dtype: Any) -> int:
        c_function = self._c_function(dtype)
        with nullcontext() if c_function.is_cached else clock:  # which includes linking and caching
            c_function.compile()
        return int(c_function.address)


as_written = partial(Kernel, reorder=False)
as_in_numpy = partial(Kernel, reorder=False, fuse=False)


@inlined
def share(items, part, parts):
    """(first, end) of the items of one part."""
    return part * items // parts, (part + 1) * items // parts


class _CFunction(CFunc):
    """Numba's CFunc, which also reports when it compiles."""

    @property
    def is_cached(self) -> bool:
        """Whether it has been compiled before, by any process."""
        codegen = self._targetdescr.target_context.codegen()
        return isinstance(self._cache, kernel_cache.KernelCache) and self._cache.has(self._sig, codegen)

    def _compile_uncached(self) -> Any:
        is_collecting = gc.isenabled()
        gc.disable()  # a tenth of the time: what the compiler makes is needed until it has finished
        try:
            with event.trigger_event("numba:compile"):
                return super()._compile_uncached()
        finally:
            if is_collecting:
                gc.enable()


class CompileClock(event.Listener):
    """Counts the seconds in which this process compiles, in any thread; loading from disk is not counted."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.begun: Callable[[], None] = lambda: None  # called once, when the first compilation begins
        self.reset()

    def reset(self) -> None:
        """Count nothing until the next compilation, as in a child process, in which no other thread runs."""
        self._lock = threading.Lock()
        self._depth = 0  # compiling a function also compiles those that it calls

    def __enter__(self) -> None:
        self.on_start(None)

    def __exit__(self, *exception: object) -> None:
        self.on_end(None)

    def on_start(self, event: Any) -> None:
        with self._lock:
            begun, self.begun = self.begun, lambda: None
        begun()
        with self._lock:
            if self._depth == 0:
                self._start = time.perf_counter()
            self._depth += 1

    def on_end(self, event: Any) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - self._start


clock = CompileClock()
event.register("numba:compile", clock)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=clock.reset)


def _nothing(part: int, parts: int) -> None:
    pass


@cache
def try_out() -> None:
    """Compile an empty kernel, so that a Numba that does not work fails here and not in a step."""
    if numba.config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT is set, so nothing can be compiled")
    Kernel(_nothing).address(np.float32)
