"""Machines with and without CUDA, made of a fake CuPy; and the stand-in device."""

import sys
import weakref
from collections import Counter, deque
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.fake_cupy import FakePool, fake_cupy
from helpers.standin import StandInBackend

from backends import registry
from backends.cuda import capture, diagnosis
from backends.cuda.backend import CudaBackend


@pytest.fixture
def machine(monkeypatch):
    """``machine(packages, driver, cupy)`` makes this look like a machine where just these are installed."""
    for variable in ("CNN_DEVICE", "CUDA_VISIBLE_DEVICES", "CUPY_TF32"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(registry, "_made", {})
    monkeypatch.setattr(capture, "_belongings", weakref.WeakSet())
    monkeypatch.setattr(capture, "_retired", deque())
    monkeypatch.setattr(FakePool, "taken", Counter())

    def install(packages=(), driver=0, cupy=None):
        found = [SimpleNamespace(name=name) for name in ("numpy", "cupy-xarray", *packages)]
        monkeypatch.setattr(diagnosis.metadata, "distributions", lambda: found)
        monkeypatch.setattr(diagnosis, "_driver_version", lambda: driver)
        monkeypatch.setitem(sys.modules, "cupy", cupy)  # None: cannot be imported

    return install


@pytest.fixture
def gpu(machine):
    """A backend on the second of two fake GPUs."""
    machine(["cupy-cuda12x"], 13000, fake_cupy(2))
    return CudaBackend(1)


@pytest.fixture
def device():
    """The stand-in device; it has counted nothing yet."""
    backend = StandInBackend()
    backend.reset_counters()
    return backend


@pytest.fixture
def a(device):
    """[0, 1, 2] on the stand-in device."""
    array = device.asarray(np.arange(3, dtype=np.float32))
    device.reset_counters()
    return array
