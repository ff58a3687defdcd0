"""The machine and the library versions that results depend on."""

import os
import platform
import time
from typing import Any

from cnn.support.libraries import version
from cnn.support.version import VERSION

PACKAGES = (
    "numpy", "scipy", "numba", "threadpoolctl", "safetensors", "rich", "typer",
    "matplotlib", "jinja2", "pillow", "pydantic", "onnx", "tensorboard",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Information for a bug report, except the devices: versions, system and environment variables."""
    set_here = ("CNN_DEVICE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "xpcnn": VERSION,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "variables": {name: os.environ[name] for name in set_here if name in os.environ},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
