"""Threads that share the parts of a kernel, and the atomic operations with which they agree on who does what.

The caller posts a job: a C function, its arguments and a number of parts. Each part is claimed by one thread:
by the one that computed it last time if that is at hand, because it has the data in its cache, otherwise by
any. So a worker that does not get a core delays nothing: the caller computes what nobody has claimed, and
waits only for parts that others have begun. A worker that finds nothing to do spins for a moment, since a
step makes one call right after another, and then sleeps, outside the interpreter and its lock.
"""

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from platform import machine
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from backends.cpu.compiled import kernel_cache
from backends.cpu.compiled.compiler import Compiler, inlined
from backends.cpu.compiled.registers import call

MOST_ARGUMENTS = 24  # a case is compiled for each number of them
SPIN_SECONDS = 1e-4  # longer than the gaps in a step

# What the threads share, as places in a block of memory, in bytes. What is written often has a line of the
# cache to itself: 128 bytes, because some processors fetch two lines of 64 at a time.
_LINE = 128
TICKET, STOP = 0, 8  # the number of the latest job and its parts, in one word; whether the workers must end
DONE, WAITING = _LINE, _LINE + 8  # the number of parts that are done; whether the caller sleeps until all are
SLEEPERS = 2 * _LINE  # how many workers sleep
BUSY = 3 * _LINE  # whether there is a caller
ADDRESS, ARGUMENTS, COUNT = (4 * _LINE + 8 * word for word in range(3))  # the job
ACQUIRE, RELEASE, BELL, SPINS = (5 * _LINE + 8 * word for word in range(4))  # constants of this process
CLAIM, ASLEEP, WORKERS_BELL = (6 * _LINE + 8 * word for word in range(3))  # a line for each part and worker
MOST_PARTS = 1024  # more are computed by the caller alone
_SIZE = CLAIM + MOST_PARTS * _LINE
_PARTS_BITS = MOST_PARTS.bit_length()

_WORD = ir.IntType(64)


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, _WORD.as_pointer())


@intrinsic
def load(typing_context, address):
    """The word at ``address``; as all operations here, in one order for all threads."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        return builder.load_atomic(_pointer(builder, values[0]), "seq_cst", 8)

    return types.intp(types.intp), codegen


@intrinsic
def store(typing_context, address, value):
    """Write the word at ``address``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        builder.store_atomic(values[1], _pointer(builder, values[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def add(typing_context, address, value):
    """Add to the word at ``address``; -> what it was before."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, values[0]), values[1], "seq_cst")

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def replace(typing_context, address, old, new):
    """Write ``new`` if the word at ``address`` is ``old``; -> whether it was."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        address, old, new = values
        pair = builder.cmpxchg(_pointer(builder, address), old, new, "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.intp, types.intp, types.intp), codegen


@intrinsic
def pause(typing_context):
    """Let the core's other thread, or the memory, have a moment."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        name, arguments = _PAUSES.get(machine().lower(), ("", []))
        if name:
            kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
        return context.get_dummy_value()

    return types.void(), codegen


_X86, _ARM = ("llvm.x86.sse2.pause", []), ("llvm.aarch64.isb", [ir.Constant(ir.IntType(32), 15)])
_PAUSES: dict[str, tuple[str, list[ir.Value]]] = {
    "x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM
}  # fmt: skip


@intrinsic
def call_part(typing_context, address, arguments, count, part, parts):
    """Call the C function at an address with ``count`` words, pointers as integers, then the last two.

    Every platform hands both kinds over in the same way.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        address, arguments, count, part, parts = values
        words = _pointer(builder, arguments)
        end = builder.append_basic_block("end")
        choice = builder.switch(count, end)
        for number in range(MOST_ARGUMENTS + 1):
            block = builder.append_basic_block(f"arguments_{number}")
            choice.add_case(ir.Constant(_WORD, number), block)
            builder.position_at_end(block)
            places = [builder.gep(words, [ir.Constant(_WORD, place)]) for place in range(number)]
            given = [*map(builder.load, places), part, parts]
            function = ir.FunctionType(ir.VoidType(), [_WORD] * len(given))
            builder.call(builder.inttoptr(address, function.as_pointer()), given)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), codegen


@inlined
def _compute(pool, ticket, own):
    """Compute the part ``own`` of a job, and then those that nobody has claimed."""
    job, parts = ticket >> _PARTS_BITS, ticket & ((1 << _PARTS_BITS) - 1)
    for step in range(parts):
        part = (own + step) % parts
        claim = pool + CLAIM + part * _LINE
        latest = load(claim)
        # a job is not over before all parts are claimed, so nobody claims a part of an old one later
        if latest < job and replace(claim, latest, job):
            call_part(load(pool + ADDRESS), load(pool + ARGUMENTS), load(pool + COUNT), part, parts)
            if add(pool + DONE, 1) == parts - 1 and replace(pool + WAITING, 1, 0):
                call(load(pool + RELEASE), (load(pool + BELL),))


@inlined
def _is_for(ticket, worker, seen):
    """Whether a worker may take part in a job: it has not seen it, and there is a part of its own in it."""
    return ticket >> _PARTS_BITS != seen and worker < ticket & ((1 << _PARTS_BITS) - 1)


@inlined
def _sleep(pool, worker, seen):
    asleep = pool + worker * _LINE + ASLEEP
    store(asleep, 1)
    add(pool + SLEEPERS, 1)
    is_needed = _is_for(load(pool + TICKET), worker, seen) or load(pool + STOP) != 0
    if is_needed and replace(asleep, 1, 0):
        add(pool + SLEEPERS, -1)
    else:  # also if somebody has just begun to wake it
        call(load(pool + ACQUIRE), (load(pool + worker * _LINE + WORKERS_BELL), 1))


@inlined
def _wake(pool, first, beyond):
    """Wake those of some workers that sleep."""
    for worker in range(first, beyond):
        if load(pool + worker * _LINE + ASLEEP) != 0 and replace(pool + worker * _LINE + ASLEEP, 1, 0):
            add(pool + SLEEPERS, -1)
            call(load(pool + RELEASE), (load(pool + worker * _LINE + WORKERS_BELL),))


def _work(pool, worker):
    seen = idle = 0
    while load(pool + STOP) == 0:
        ticket = load(pool + TICKET)
        if _is_for(ticket, worker, seen):
            _compute(pool, ticket, worker)
            seen, idle = ticket >> _PARTS_BITS, 0
        elif idle < load(pool + SPINS):
            idle += 1
            pause()
        else:
            _sleep(pool, worker, seen)
            idle = 0


def _launch(address, arguments, count, parts, pool):
    if parts == 1 or parts > MOST_PARTS or not replace(pool + BUSY, 0, 1):
        for part in range(parts):
            call_part(address, arguments, count, part, parts)
        return
    store(pool + ADDRESS, address)
    store(pool + ARGUMENTS, arguments)
    store(pool + COUNT, count)
    store(pool + DONE, 0)
    ticket = ((load(pool + TICKET) >> _PARTS_BITS) + 1) << _PARTS_BITS | parts
    store(pool + TICKET, ticket)
    if load(pool + SLEEPERS) != 0:
        _wake(pool, 1, parts)
    _compute(pool, ticket, 0)
    _wait(pool, parts)
    store(pool + BUSY, 0)


@inlined
def _wait(pool, parts):
    """Wait until all parts are done: their threads may have been interrupted by other programs."""
    idle = 0
    while load(pool + DONE) < parts:
        if idle < load(pool + SPINS):
            idle += 1
            pause()
            continue
        store(pool + WAITING, 1)
        if load(pool + DONE) < parts or not replace(pool + WAITING, 1, 0):
            call(load(pool + ACQUIRE), (load(pool + BELL), 1))


def _spin(pauses):
    for _ in range(pauses):
        pause()


def _callable(function: Callable[..., None]) -> Any:
    compiled = numba.njit(nogil=True, no_cfunc_wrapper=True, pipeline_class=Compiler)(function)
    kernel_cache.attach(compiled, function)
    return compiled


launch, work, spin = _callable(_launch), _callable(_work), _callable(_spin)


def compile_functions() -> None:
    """Compile the functions of this module, if they are not cached, before a kernel is called."""
    for compiled, parameters in ((launch, 5), (work, 2), (spin, 1)):
        compiled.compile((types.intp,) * parameters)


class Pool:
    """The workers of this process and the block that they share; there is one, as the cores are shared."""

    def __init__(self) -> None:
        memory = np.zeros(_SIZE + _LINE, dtype=np.uint8)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # threads may outlive the interpreter
        start = -memory.ctypes.data % _LINE
        self.address: int = memory.ctypes.data + start
        self._words = memory[start : start + _SIZE].view(np.int64)
        for place, name in ((ACQUIRE, "acquire"), (RELEASE, "release")):
            function = getattr(ctypes.pythonapi, f"PyThread_{name}_lock")
            self._set(place, ctypes.cast(function, ctypes.c_void_p).value)
        self.reset()

    def reset(self) -> None:
        """Begin without workers: after a fork there are none, and a job may have been half done."""
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        for place in (STOP, DONE, WAITING, SLEEPERS, BUSY):
            self._set(place, 0)
        self._set(BELL, _taken_lock())

    def start(self, parts: int) -> None:
        """Have a worker for each of the parts but the caller's, if the system permits it."""
        if parts <= len(self._workers) + 1:
            return
        with self._lock, suppress(RuntimeError):  # no further thread can be started
            if not self._get(SPINS):
                self._set(SPINS, _pauses(SPIN_SECONDS))
            while len(self._workers) + 1 < min(parts, MOST_PARTS) and not self._get(STOP):
                number = len(self._workers) + 1
                self._set(number * _LINE + ASLEEP, 0)
                self._set(number * _LINE + WORKERS_BELL, _taken_lock())
                name = f"kernels {number}"
                thread = threading.Thread(target=work, args=(self.address, number), name=name, daemon=True)
                thread.start()
                self._workers.append(thread)

    def end(self) -> None:
        """End the workers before the interpreter ends; later jobs are computed by their callers."""
        self._set(STOP, 1)
        for number, thread in enumerate(self._workers, start=1):
            bell = ctypes.c_void_p(self._get(number * _LINE + WORKERS_BELL))
            ctypes.pythonapi.PyThread_release_lock(bell)  # awake or not
            thread.join(timeout=5)

    def _get(self, place: int) -> int:
        return int(self._words[place // 8])

    def _set(self, place: int, value: Any) -> None:
        self._words[place // 8] = value


def _taken_lock() -> int:
    """A lock of the kind that the interpreter uses, which machine code can wait for and release."""
    allocate, acquire = ctypes.pythonapi.PyThread_allocate_lock, ctypes.pythonapi.PyThread_acquire_lock
    allocate.restype = ctypes.c_void_p
    lock: int = allocate()
    acquire(ctypes.c_void_p(lock), 1)
    return lock


def _pauses(seconds: float) -> int:
    """As many pauses as take this long: their length differs by a factor of 20 between processors."""
    some, fastest = 1000, 1.0
    for _ in range(4):  # the first one compiles
        start = time.perf_counter()
        spin(some)
        fastest = min(fastest, time.perf_counter() - start)
    return int(some * seconds / fastest)


pool = Pool()
atexit.register(pool.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.reset)
