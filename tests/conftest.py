"""Fixtures: every test that takes ``backend`` runs on the CPU, and on CUDA where there is one."""

import os
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))  # the checkout, installed or not
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the tests run side by side; read when NumPy is loaded

import backends
from backends import DeviceUnavailable


@cache
def cuda_missing() -> str | None:
    """Why there is no CUDA device, or None where there is one."""
    try:
        backends.get("cuda")
    except DeviceUnavailable as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and cuda_missing():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_sessionfinish(session, exitstatus):
    if session.config.getoption("markexpr") == "gpu" and cuda_missing():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED  # asked for GPU tests alone, and none could run


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    left_out = [report for report in skipped if "gpu" in getattr(report, "keywords", ())]
    if left_out:
        terminalreporter.section(f"{len(left_out)} GPU TESTS WERE LEFT OUT", yellow=True)
        terminalreporter.line(cuda_missing() or "")


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def backend(request):
    """Each device, with its own best kernels."""
    return backends.get(request.param)


@pytest.fixture(params=["portable", "signal"])
def kernels(request):
    """Each kernel set by name."""
    return request.param
