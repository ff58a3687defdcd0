"""Where the CUDA kernels run in tests: on the host, between guard pages, or on a GPU."""

import numpy as np
import pytest

import backends
from helpers import host_cuda
from helpers.guarded import guarded
from helpers.host_cuda import RawModule
from helpers.standin import Array, StandInBackend

PLACES = [
    pytest.param("forwards", marks=host_cuda.needed),
    pytest.param("backwards", marks=host_cuda.needed),
    pytest.param("on a GPU", marks=pytest.mark.gpu),
]
"""The host, its threads one way round or the other, or a GPU."""


class Fenced(StandInBackend):
    """Brings data between pages that nobody may touch: what reaches beyond an array ends the process."""

    def asarray(self, host, dtype=None, out=None):
        return Array(guarded(np.asarray(host, dtype), at_end=not RawModule.backwards))


def device_at(place, monkeypatch):
    """What the kernels run on in one of ``PLACES``."""
    if place == "on a GPU":
        return backends.get("cuda", "compiled")
    monkeypatch.setattr(RawModule, "backwards", place == "backwards")
    return Fenced("compiled")
