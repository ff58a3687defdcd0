"""The devices that tests run on."""

from functools import cache

import pytest

import backends
from backends import DeviceUnavailable

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@cache
def cuda_missing() -> str | None:
    """Why there is no CUDA device, or None where there is one."""
    try:
        backends.get("cuda")
    except DeviceUnavailable as error:
        return str(error)
    return None
