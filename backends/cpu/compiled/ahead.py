"""Compiles kernels before they are called, in several processes at once.

Each process writes what it compiles into the folder of kernels, where this one finds it. A helper process
reads the names of kernels line by line and answers each with a line.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from types import FunctionType
from typing import Any

import numpy as np

from backends.cpu import threads
from backends.cpu.compiled import kept
from backends.cpu.compiled.jit import KERNELS, Kernel, clock
from backends.cpu.compiled.pool import compile_functions
from backends.errors import DeviceUnavailable

MOST_PROCESSES = 8  # the largest kernel takes a fifth of the time for all that a network needs
Task = tuple[Kernel, Any]  # a kernel and a dtype


class Progress:
    """Tells how many of the kernels are compiled."""

    def __init__(self) -> None:
        self.show: Callable[[str], None] = lambda text: None

    def tell(self, done: int, total: int) -> None:
        self.show(f"compiling kernels: {done} of {total}" if done < total else "")


progress = Progress()


def compile_all(dtypes: Sequence[str]) -> dict[str, Any]:
    """Compile every kernel of the library for these dtypes; -> what was compiled, and where it is kept."""
    own = [kernel for name, kernel in KERNELS.items() if name.startswith(f"{__package__}.")]
    tasks = [(kernel, np.dtype(dtype)) for kernel in own for dtype in dtypes]
    if kept.folder.obstacle is None:
        compiled = compile_missing(tasks)
    if kept.folder.obstacle is not None:
        raise DeviceUnavailable(f"kernels were not compiled, because {kept.folder.outlook}")
    size = sum(file.stat().st_size for file in kept.folder.path.glob("*.nbc"))
    present = len(tasks) - compiled
    return {"compiled": compiled, "present": present, "folder": str(kept.folder.path), "bytes": size}


def compile_missing(tasks: Iterable[Task]) -> int:
    """Compile those kernels that are neither in memory nor on disk; -> how many there were."""
    missing = [task for task in dict.fromkeys(tasks) if not task[0].is_ready(task[1])]
    if missing:
        with clock:
            _compile(deque(sorted(missing, key=_size, reverse=True)))
    return len(missing)


def _compile(tasks: deque[Task]) -> None:
    """Compile in as many processes as there are cores, the largest kernels first."""
    total, lock, finished = len(tasks), threading.Lock(), [0]

    def each(compile_one: Callable[[Task], bool]) -> None:
        while True:
            with lock:
                if not tasks:
                    return
                task = tasks.popleft()
                progress.tell(finished[0], total)
            is_done = compile_one(task)
            with lock:
                if not is_done:
                    tasks.appendleft(task)
                    return
                finished[0] += 1

    def compile_here(task: Task) -> bool:
        kernel, dtype = task
        return kernel.address(dtype) != 0

    with ExitStack() as stack:
        processes = 1 if kept.folder.obstacle else min(threads.count(), MOST_PROCESSES, total)
        helpers = [_Helper() for _ in range(processes - 1)]
        for helper in helpers:
            stack.callback(helper.end)
        others = [threading.Thread(target=each, args=(helper.compile,), daemon=True) for helper in helpers]
        for other in others:
            other.start()
        compile_functions()  # while the helpers start
        each(compile_here)
        for other in others:
            other.join()
        each(compile_here)  # what a helper that ended has left
    progress.tell(total, total)


class _Helper:
    """Another process that compiles; if it cannot be started or ends early, this process does its work."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        environment = {"NUMBA_CACHE_DIR": kept.folder.name or "", "PYTHONPATH": os.pathsep.join(sys.path)}
        if getattr(sys, "frozen", False):  # sys.executable is another program than Python
            return
        with suppress(OSError, TypeError, ValueError):
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import help_out; help_out()"],
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def compile(self, task: Task) -> bool:
        """Whether it has compiled the kernel."""
        kernel, dtype = task
        if self._process and self._process.stdin and self._process.stdout:
            with suppress(OSError, ValueError):
                self._process.stdin.write(f"{kernel.name} {dtype}\n")
                self._process.stdin.flush()
                return bool(self._process.stdout.readline())
        return False

    def end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()


def help_out() -> None:
    """Compile the kernels that standard input names; the main function of a helper process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the process that it helps decides
    for line in sys.stdin:
        name, dtype = line.split()
        import_module(name.rpartition(".")[0])
        KERNELS[name].address(np.dtype(dtype))
        sys.stdout.write("compiled\n")
        sys.stdout.flush()


def _size(task: Task) -> int:
    """The length of a kernel's code and of all that is compiled into it; the time is about proportional."""

    def size(function: FunctionType) -> int:
        values = (function.__globals__.get(name) for name in function.__code__.co_names)
        called = (value.py_func for value in values if hasattr(value, "py_func"))
        return len(function.__code__.co_code) + sum(map(size, called))

    return size(task[0].function)  # type: ignore[arg-type]
