"""Diagnoses why CUDA cannot be used or has failed. Each message ends with what to do."""

import ctypes
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from types import ModuleType

from backends.errors import DeviceLost, DeviceUnavailable, OutOfMemory
from backends.text import first_line, quoted, readable_bytes

OLDEST_CAPABILITY = 75  # required by the compiled kernels; CuPy writes 7.5 as "75"

# Names of errors in CUDA's runtime, driver and cuBLAS, without prefix and underscores, in lower case.
_FULL = {"memoryallocation", "outofmemory", "allocfailed"}
_LOST = {
    "assert", "contained", "contextisdestroyed", "deviceunavailable", "devicesunavailable",
    "eccuncorrectable", "executionfailed", "externaldevice", "hardwarestackerror", "illegaladdress",
    "illegalinstruction", "invalidaddressspace", "invalidpc", "launchfailed", "launchfailure",
    "launchtimeout", "misalignedaddress", "mpsclientterminated", "nodevice", "notpermitted",
    "nvlinkuncorrectable", "systemnotready", "tensormemoryleak", "unknown",
}  # fmt: skip


def import_cupy() -> ModuleType:
    """Import cupy; DeviceUnavailable if it is not installed, broken, or installed more than once."""
    packages = _cupy_packages()
    if len(packages) > 1:  # checked before the import, because their files overwrite each other
        raise DeviceUnavailable(
            f"several CuPy packages are installed, {' and '.join(packages)}, and overwrite each other: "
            f"run {_pip()} uninstall -y {' '.join(packages)}, then {_install_command()}"
        )
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy" or packages:
            raise DeviceUnavailable(_broken(packages, error)) from error
        if _driver_version():
            raise DeviceUnavailable(f"CuPy is not installed: run {_install_command()}") from error
        raise DeviceUnavailable(
            "CuPy is not installed, and no NVIDIA driver was found: if this machine has an NVIDIA GPU, "
            f"install its driver, then run {_install_command()}"
        ) from error
    except Exception as error:
        raise DeviceUnavailable(_broken(packages, error)) from error
    return cupy


def count_devices(cupy: ModuleType) -> int:
    """The number of devices that CUDA finds; DeviceUnavailable if there are none."""
    try:
        devices = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        if "cudaErrorInsufficientDriver" in str(error):
            raise DeviceUnavailable(_driver_trouble(cupy)) from error
        if "cudaErrorInitializationError" in str(error):
            raise DeviceUnavailable(
                f"CUDA does not start ({_summary(error)}), as in a process that was forked after "
                'CUDA was used: start the process with multiprocessing.get_context("spawn"), or check the '
                "NVIDIA driver with nvidia-smi"
            ) from error
        if "cudaErrorNoDevice" not in str(error):
            raise DeviceUnavailable(
                f"CUDA does not start ({_summary(error)}): check the NVIDIA driver with nvidia-smi"
            ) from error
        devices = 0
    if devices == 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            raise DeviceUnavailable(
                f"no CUDA device is visible, because CUDA_VISIBLE_DEVICES is {visible!r}: "
                "run `unset CUDA_VISIBLE_DEVICES`, and check with nvidia-smi"
            )
        raise DeviceUnavailable("the NVIDIA driver finds no GPU: check with nvidia-smi")
    return devices


def listed(devices: int) -> str:
    """2 -> "2 CUDA devices, cuda:0 and cuda:1"."""
    names = [f"cuda:{index}" for index in range(devices)]
    if devices == 1:
        return "1 CUDA device, cuda:0"
    return f"{devices} CUDA devices, {', '.join(names[:-1])} and {names[-1]}"


def _driver_trouble(cupy: ModuleType) -> str:
    driver = _driver_version()
    if not driver:
        return "no NVIDIA driver was found: install it, and check with nvidia-smi"
    needed = cupy.cuda.runtime.runtimeGetVersion() // 1000
    message = (
        f"the NVIDIA driver is too old (it supports CUDA {readable_version(driver)}, and CuPy needs "
        f"CUDA {needed}): update the driver, and check with nvidia-smi"
    )
    packages = _cupy_packages()
    if driver >= 12000 and packages:
        message += f"; or run {_pip()} uninstall -y {' '.join(packages)}, then {_install_command()}"
    return message


def failure(name: str, error: Exception) -> str:
    """The message for an error in the first kernel, the first product or a late import."""
    if isinstance(error, OutOfMemory):
        free = "" if error.free is None else f" ({readable_bytes(error.free)} are free)"
        return (
            f"{name} has too little memory for a small computation{free}: run nvidia-smi to see which "
            "processes use it"
        )
    if isinstance(error, DeviceLost) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # no work is lost yet
    text = str(error)
    unloaded = any(kind.__name__ == "DynamicLibNotFoundError" for kind in type(error).__mro__)
    if unloaded or isinstance(error, ImportError) or "CUDA headers" in text:
        missing = re.split(r": |\. |\n", text)[0]  # the name; the rest is a list of folders
        return f"{name} lacks a part of the CUDA toolkit ({missing}): {_toolkit_advice()}"
    if "gpu-architecture" in text:  # CUDA 13 does not support GPUs below compute capability 7.5
        return (
            f"{name} is too old for the CUDA version of this CuPy: "
            f"run {_pip()} uninstall -y {' '.join(_cupy_packages())}, "
            f'then {_pip()} install "cupy-cuda12x[ctk]"'
        )
    if "UNSUPPORTED_PTX_VERSION" in text or "cudaErrorUnsupportedPtxVersion" in text:
        return (
            f"the NVIDIA driver is too old for the CUDA toolkit that compiles for {name}: "
            "update the driver, and check with nvidia-smi"
        )
    return f"{name} failed a small computation ({_summary(error)}): check the GPU with nvidia-smi"


def trouble(
    name: str, error: BaseException, free: Callable[[], int | None]
) -> OutOfMemory | DeviceLost | None:
    """The contract's error for an exception that CuPy raised during work, or None for other exceptions.

    ``free`` returns the number of free bytes.
    """
    text = str(error)
    refused = _REFUSED.match(text)
    if refused and isinstance(error, MemoryError):
        requested, held, limit = (int((number or "0").replace(",", "")) for number in refused.groups())
        left = free()
        if limit:  # CUPY_GPU_MEMORY_LIMIT
            left = limit - held if left is None else min(left, limit - held)
        return OutOfMemory(name, requested, left, _MEMORY_ADVICE)
    said = re.match(r"(?:cudaError|CUDA_ERROR_|CUBLAS_STATUS_)(\w+)", text)
    what = said[1].replace("_", "").lower() if said else ""
    if what in _FULL:
        return OutOfMemory(name, None, free(), _MEMORY_ADVICE)
    if what in _LOST:
        return DeviceLost(
            f"{name} is lost ({text.splitlines()[0]}): check it with nvidia-smi; this process cannot use it "
            "any more, so start again, or continue on the CPU"
        )
    return None


_REFUSED = re.compile(  # this does not match errors about pinned host memory
    r"Out of memory allocating ([\d,]+) bytes \(allocated so far: ([\d,]+) bytes"
    r"(?:, limit set to: ([\d,]+) bytes)?"
)
_MEMORY_ADVICE = "use smaller batches, or run nvidia-smi to see which other processes use memory there"


def require_capability(name: str, capability: str) -> None:
    """Raise DeviceUnavailable if the GPU is too old for the compiled kernels; "75" means 7.5."""
    if int(capability) < OLDEST_CAPABILITY:
        raise DeviceUnavailable(
            f"{name} has compute capability {readable_capability(capability)}, but the compiled kernels need "
            f'{readable_capability(str(OLDEST_CAPABILITY))} or later: use kernels="portable"'
        )


def _broken(packages: list[str], error: Exception) -> str:
    package = packages[0] if packages else "cupy"
    wanted = package if package == "cupy" else f'"{package}[ctk]"'
    return (
        f"{package} is installed but cannot be imported ({_summary(error)}): "
        f"run {_pip()} install --force-reinstall {wanted}"
    )


def _toolkit_advice() -> str:
    for package in _cupy_packages():
        if package != "cupy":
            return f'run {_pip()} install "{package}[ctk]"'
    return "install the CUDA toolkit that this CuPy was built with"  # from conda or from source


def _summary(error: BaseException) -> str:
    """The error in one line; CuPy wraps import errors in a long notice."""
    if isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


def _pip() -> str:
    """The command that runs this interpreter's pip."""
    return f"{quoted(sys.executable)} -m pip"


def _install_command() -> str:
    """The pip command that installs CuPy for this machine's driver."""
    driver = _driver_version()
    if driver:
        return f'{_pip()} install "cupy-cuda{13 if driver >= 13000 else 12}x[ctk]"'
    return f'{_pip()} install "cupy-cuda12x[ctk]" (or cupy-cuda13x if nvidia-smi shows CUDA 13)'


def _cupy_packages() -> list[str]:
    """The installed distributions that contain the package cupy."""
    names = {str(found.name).lower().replace("_", "-") for found in metadata.distributions()}
    return sorted(name for name in names if re.fullmatch(r"cupy(-(cuda|rocm)[\w-]+)?", name))


def _driver_version() -> int:
    """The CUDA version that the NVIDIA driver supports, for example 12090 for 12.9; 0 without a driver."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def readable_capability(capability: str) -> str:
    """Convert CuPy's "75" to "7.5"."""
    return f"{capability[:-1]}.{capability[-1]}"


def readable_version(number: int) -> str:
    """12090 -> "12.9"."""
    return f"{number // 1000}.{number % 1000 // 10}"
