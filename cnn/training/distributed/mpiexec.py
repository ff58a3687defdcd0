"""The program that starts several processes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.cpu.threads import available_cores
from cnn.support.errors import ArgumentError
from cnn.training.distributed.start import ADVICE, NEEDED

OPEN_MPI_AS_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")


@dataclass(frozen=True)
class Mpiexec:
    """An ``mpiexec``, of MPICH, Intel MPI or Open MPI."""

    path: Path
    is_open_mpi: bool

    @classmethod
    def find(cls) -> "Mpiexec":
        """The one in the folder of Python, else the one on the PATH; ArgumentError if there is none."""
        beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
        found = beside or shutil.which("mpiexec")
        if found is None:
            raise ArgumentError(f"{NEEDED}, but there is no mpiexec: {ADVICE}")
        try:
            told = subprocess.run(
                [found, "--version"], capture_output=True, text=True, timeout=60, check=False
            ).stdout
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ArgumentError(f"{found} does not run ({error}): {ADVICE}") from None
        made = cls(Path(found), "Open MPI" in told or "OpenRTE" in told or "PRTE" in told)
        made._require_user()
        return made

    def _require_user(self) -> None:
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        if self.is_open_mpi and is_root and not all(os.environ.get(name) for name in OPEN_MPI_AS_ROOT):
            both = " and ".join(f"{name}=1" for name in OPEN_MPI_AS_ROOT)
            raise ArgumentError(f"Open MPI does not start processes as root: set {both}, or be another user")

    def command(self, processes: int, program: Sequence[str]) -> list[str]:
        """The command line that runs ``program`` in several processes on this machine."""
        options = ["--bind-to", "none"] if self.is_open_mpi else []  # each process limits its threads itself
        if self.is_open_mpi and processes > available_cores():
            options.append("--oversubscribe")
        return [str(self.path), *options, "-n", str(processes), *program]
