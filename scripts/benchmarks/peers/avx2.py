"""Holds all libraries to AVX2, on a processor that has AVX-512 too."""

import os
import platform
from pathlib import Path

from backends.cache import user_folder
from cnn.support.errors import ArgumentError

LIBRARIES = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
    "OPENBLAS_CORETYPE": "Haswell",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}


def hold_to_avx2() -> None:
    """Set the environment of the processes that are started from now on.

    Compiled kernels get a folder of their own, because those for the whole processor have the same names.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise ArgumentError(
            f"--avx2 is about x86 processors, and this one is {platform.machine()}: leave it out"
        )
    kernels = os.environ.get("NUMBA_CACHE_DIR") or str(user_folder())
    os.environ.update(LIBRARIES, NUMBA_CACHE_DIR=str(Path(kernels, "avx2")))
