"""Runs a function of a test module in several processes at once.

python -P -m helpers.together FILE FUNCTION RESULT ARGUMENTS, in each of the processes that mpiexec starts.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import ROOT

MPIEXEC = Path(sys.executable).with_name("mpiexec")
MISSING = not MPIEXEC.exists() or importlib.util.find_spec("mpi4py") is None
needed = pytest.mark.skipif(MISSING, reason="mpi4py and an MPI are not installed")
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),  # tests/backends is not the package
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Ended:
    """How processes have ended: the exit code, what process 0 gave, and what all wrote to standard error."""

    code: int
    result: Any
    errors: str


_failures: dict[Callable[..., Any], str] = {}  # of jobs, which are not started again for the next test


def together(processes: int, job: Callable[..., Any], *arguments: Any, timeout: float = 900) -> Any:
    """What ``job(*arguments)`` gives in process 0 of so many; the test fails if one of them does.

    A single process is started without mpiexec. Arguments and results are plain JSON.
    """
    if job not in _failures:
        ended = end_of(processes, job, *arguments, timeout=timeout)
        if not ended.code:
            return ended.result
        _failures[job] = f"{processes} processes ended with {ended.code}:\n{ended.errors}"
    pytest.fail(_failures[job])


def end_of(processes: int, job: Callable[..., Any], *arguments: Any, timeout: float = 900) -> Ended:
    """As :func:`together`, for jobs that may fail."""
    launcher = [str(MPIEXEC), "-n", str(processes)] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "result.json")
        started = subprocess.run(
            [
                *launcher, sys.executable, "-P", "-m", "helpers.together", job.__code__.co_filename,
                job.__name__, str(written), json.dumps(arguments),
            ],
            cwd=folder,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )  # fmt: skip
        result = json.loads(written.read_text()) if written.exists() else None
    return Ended(started.returncode, result, started.stderr)


def main() -> None:
    """Run the function, and write what it gives in process 0."""
    from cnn.training.distributed import launcher  # of the checkout

    file, function, result, arguments = sys.argv[1:]
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = getattr(module, function)(*json.loads(arguments))
    if launcher.rank() == 0:
        Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
