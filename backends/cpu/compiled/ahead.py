"""Compiles kernels before they are called, in several processes at once.

Each process writes what it compiles into the folder of kernels, where this one finds it. A helper process
reads the names of kernels line by line and answers each with a line.
"""

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from backends.cpu import threads
from backends.cpu.compiled import kernel_cache
from backends.cpu.compiled.jit import KERNELS, Kernel, clock
from backends.cpu.compiled.pool import compile_functions
from backends.errors import DeviceUnavailable

MOST_PROCESSES = 8  # the largest kernel takes a fifth of the time for all that a network needs
LEAST_PATIENCE, PATIENCE = 20, 10  # a helper has hung after so many seconds, and so many of the longest times
COMPILED = "compiled\n"  # a helper's answer
Task = tuple[Kernel, Any]  # a kernel and a dtype


class Progress:
    """Tells how many of the kernels are compiled."""

    def __init__(self) -> None:
        self.show: Callable[[str], None] = lambda text: None

    def tell(self, done: int, total: int) -> None:
        self.show(f"compiling kernels: {done} of {total}" if done < total else "")


progress = Progress()


def compile_all(dtypes: Sequence[str]) -> dict[str, Any]:
    """Compile every kernel of the library for these dtypes; -> what was compiled, and where it is cached."""
    own = [kernel for name, kernel in KERNELS.items() if name.startswith(f"{__package__}.")]
    tasks = [(kernel, np.dtype(dtype)) for kernel in own for dtype in dtypes if dtype in kernel.dtypes]
    _require_folder()
    compiled = compile_missing(tasks)
    return _found(compiled, len(tasks))


def compile_used_by(uses: Sequence[Callable[[], None]]) -> dict[str, Any]:
    """Compile the kernels that ``uses`` call; -> the same as :func:`compile_all`."""
    _require_folder()
    compile_functions()
    kernels, files = _loaded(), _files()
    for use in uses:
        use()
    needed = len(_loaded() - kernels)
    return _found(min(needed, len(_files() - files)), needed)  # another process may have written files too


def _require_folder() -> None:
    if kernel_cache.folder.reason is not None:
        raise DeviceUnavailable(f"kernels were not compiled, because {kernel_cache.folder.status}")


def _found(compiled: int, needed: int) -> dict[str, Any]:
    _require_folder()
    files = _files()
    size = sum(file.stat().st_size for file in files)
    return {
        "compiled": compiled,
        "present": needed - compiled,
        "folder": str(kernel_cache.folder.path),
        "bytes": size,
    }


def _files() -> set[Path]:
    return set(kernel_cache.folder.path.glob("*.nbc"))


def _loaded() -> set[Task]:
    return {(kernel, dtype) for kernel in KERNELS.values() for dtype in kernel.loaded}


def compile_missing(tasks: Iterable[Task]) -> int:
    """Compile those kernels that are neither in memory nor on disk; -> how many there were."""
    missing = [task for task in dict.fromkeys(tasks) if not task[0].is_ready(task[1])]
    if missing:
        with clock:
            _compile(missing)
    return len(missing)


def _compile(tasks: list[Task]) -> None:
    """Compile in as many processes as there are cores."""
    queue = _Queue(tasks)
    processes = 1 if kernel_cache.folder.reason else min(threads.count(), MOST_PROCESSES, len(tasks))
    with ExitStack() as stack:
        helpers = [_Helper() for _ in range(processes - 1)]
        for helper in helpers:
            stack.callback(helper.end)
        others = [threading.Thread(target=queue.work, args=(each.compile,), daemon=True) for each in helpers]
        for other in others:
            other.start()
        compile_functions()  # while the helpers start
        queue.work(_compile_here)
        for helper, other in zip(helpers, others, strict=True):
            while other.is_alive():
                other.join(0.1)
                if helper.seconds > max(LEAST_PATIENCE, PATIENCE * queue.longest):
                    helper.end()
        queue.work(_compile_here)  # what a helper that ended has left
    progress.tell(len(tasks), len(tasks))


def _compile_here(task: Task) -> bool:
    kernel, dtype = task
    return kernel.address(dtype) != 0


class _Queue:
    """The kernels that nobody compiles yet, the largest first."""

    def __init__(self, tasks: list[Task]) -> None:
        self._tasks = deque(sorted(tasks, key=_size, reverse=True))
        self._total, self._finished = len(tasks), 0
        self._lock = threading.Lock()
        self.longest = 0.0  # seconds for a kernel

    def work(self, compile_one: Callable[[Task], bool]) -> None:
        """Have ``compile_one`` compile one kernel after another, until none is left or it returns False."""
        while True:
            with self._lock:
                if not self._tasks:
                    return
                task, start = self._tasks.popleft(), time.monotonic()
                progress.tell(self._finished, self._total)
            is_done = compile_one(task)
            with self._lock:
                if not is_done:
                    self._tasks.appendleft(task)
                    return
                self._finished += 1
                self.longest = max(self.longest, time.monotonic() - start)


class _Helper:
    """Another process that compiles.

    If it cannot be started, ends early, hangs or cannot write a file, this process does its work.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._begun: float | None = None
        cache, modules = kernel_cache.folder.name or "", os.pathsep.join(sys.path)
        environment = {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": modules}
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

    @property
    def seconds(self) -> float:
        """How long it has been busy with the current kernel."""
        return time.monotonic() - self._begun if self._begun else 0.0

    def compile(self, task: Task) -> bool:
        """Whether it has compiled the kernel."""
        kernel, dtype = task
        if self._process and self._process.stdin and self._process.stdout:
            self._begun = time.monotonic()
            with suppress(OSError, ValueError):
                self._process.stdin.write(f"{kernel.name} {dtype}\n")
                self._process.stdin.flush()
                return self._process.stdout.readline() == COMPILED
        return False

    def end(self) -> None:
        """End the process, also if it has been stopped."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):  # what could not be written
                    pipe.close()  # type: ignore[union-attr]


def help_out() -> None:
    """Compile the kernels that standard input names; the main function of a helper process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the process that it helps decides
    for line in sys.stdin:
        name, dtype = line.split()
        import_module(name.rpartition(".")[0])
        kernel = KERNELS[name]
        kernel.address(np.dtype(dtype))
        if not kernel.is_on_disk(np.dtype(dtype)):
            return  # the process that it helps reports the error when it compiles this kernel
        sys.stdout.write(COMPILED)
        sys.stdout.flush()


def _size(task: Task) -> int:
    """The length of a kernel's code and of all that is compiled into it; the time is about proportional."""

    def size(function: FunctionType) -> int:
        inner = inspect.getclosurevars(function)
        called = (
            value.py_func
            for value in [*inner.globals.values(), *inner.nonlocals.values()]
            if hasattr(value, "py_func")
        )
        return len(function.__code__.co_code) + sum(map(size, called))

    return size(task[0].function)  # type: ignore[arg-type]
