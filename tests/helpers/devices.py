"""The devices that tests run on."""

from functools import cache

import pytest

import backends
from backends import Backend, DeviceUnavailable

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def get(name: str, kernels: str) -> Backend:
    """The device with these kernels; the test is skipped where they need Numba and it is not installed."""
    if (name, kernels) == ("cpu", "compiled"):
        pytest.importorskip("numba")
    return backends.get(name, kernels)


@cache
def cuda_missing() -> str | None:
    """Why there is no CUDA device, or None where there is one."""
    try:
        backends.get("cuda")
    except DeviceUnavailable as error:
        return str(error)
    return None
