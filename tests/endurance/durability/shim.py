"""The library shim.c: made, loaded into a Python of its own, and armed."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from errno import errorcode
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
SHORT, LASTING = -1, 1 << 16


class Call(NamedTuple):
    """A call that changed a file, or would have."""

    name: str
    way: int  # what it was given: 0, SHORT or an errno
    path: str


def compiler() -> str | None:
    """The C compiler's path, where the system has one and libraries can be preloaded."""
    return shutil.which("cc") or shutil.which("gcc") if sys.platform == "linux" else None


def run_again(folder: Path) -> int:
    """Run this very program once more with the library, which is made in ``folder``; -> its exit code.

    NumPy gets one thread there, since others would not be in a forked process.
    """
    library = folder / "shim.so"
    command = [compiler(), "-shared", "-fPIC", "-O1", str(SOURCE), "-o", str(library), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def loaded() -> Callable[..., None] | None:
    """The function that arms the library, where this process has it."""
    function = getattr(ctypes.CDLL(None), "fail_from", None)
    if function is not None:
        function.argtypes = ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long, ctypes.c_int
        function.restype = None
    return function


def read_log(path: Path) -> list[Call]:
    """The calls in the order in which they came."""
    calls = []
    for line in path.read_text().splitlines():
        name, way, place = line.split(" ", 2)
        calls.append(Call(name, int(way), place))
    return calls


def way_name(way: int) -> str:
    """As in "short", "EIO", "ENOSPC from then on"."""
    if way == SHORT:
        return "short"
    return errorcode[way & ~LASTING] + (" from then on" if way & LASTING else "")
