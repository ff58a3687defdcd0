"""The device and the software on it."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import backends
from cnn.support.environment import environment
from measurements.record import Record

ROOT = Path(__file__).resolve().parents[2]
ASKED = (
    "name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit",
    "temperature.gpu", "mig.mode.current",
)  # fmt: skip
WHAT_FOR = {
    "torch": "to compare with PyTorch",
    "threadpoolctl": "to compare the GPU with the CPU",
    "numba": "to compare the GPU with the CPU's compiled kernels",
    "ml_dtypes": "for networks in bfloat16",
    "hypothesis": "for the tests of kernels with random arguments",
}  # packages that some parts use


def measure(device: str, record: Record) -> None:
    """Note what the device is; DeviceUnavailable if it cannot be used."""
    backend = backends.get(device)
    record.note(device=backend.describe(), memory=backend.memory())
    record.note(
        machine=environment(),
        commit=answer("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        missing={name: purpose for name, purpose in WHAT_FOR.items() if not is_installed(name)},
    )
    if device != "cpu":
        asked = answer("nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader")
        record.note(nvidia_smi=[dict(zip(ASKED, line.split(", "), strict=False)) for line in lines(asked)])


def is_installed(package: str) -> bool:
    """Whether the package is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def answer(program: str, *arguments: str) -> str | None:
    """What the program prints; None if it is not there, fails or hangs."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def lines(text: str | None) -> list[str]:
    """The lines of a text; none of None."""
    return text.splitlines() if text else []
