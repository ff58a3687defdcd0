"""Fixtures: every test that takes ``backend`` runs on the CPU, and on CUDA where there is one."""

import contextlib
import gc
import os
import sys

import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT))  # the checkout, installed or not
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the tests run side by side; read when NumPy is loaded
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would parse all modules again

import numpy as np
from helpers.devices import DEVICES, cuda_missing

import backends
from backends import registry
from backends.cpu import threads

with contextlib.suppress(ImportError):  # the tests that need it say so
    from hypothesis import settings

    settings.register_profile("thorough", max_examples=2000)  # twenty times as many as usual


def pytest_addoption(parser):
    parser.addoption("--need-gpu", action="store_true", help="fail at once where there is no CUDA device")


def pytest_sessionstart(session):
    if session.config.getoption("need_gpu") and cuda_missing():
        raise pytest.UsageError(cuda_missing())


LONGEST = ("tests/distributed/", "tests/endurance/", "tests/repository/", "tests/selftest/")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("gpu") and cuda_missing():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))  # else one may run alone at the end


def pytest_collection_finish():
    gc.freeze()  # the tests themselves are no garbage: without them, each collection takes a moment


def pytest_sessionfinish(session, exitstatus):
    if session.config.getoption("markexpr") == "gpu" and cuda_missing():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED  # asked for GPU tests alone, and none could run


def pytest_terminal_summary(terminalreporter):
    passed = terminalreporter.stats.get("passed", [])
    compiled = sorted(value for report in passed for name, value in report.user_properties if name == "cuda")
    if compiled:
        terminalreporter.section("CUDA kernels")
        for line in compiled:
            terminalreporter.line(line)
    skipped = terminalreporter.stats.get("skipped", [])
    left_out = [report for report in skipped if "gpu" in getattr(report, "keywords", ())]
    if left_out:
        terminalreporter.section(f"{len(left_out)} GPU TESTS WERE LEFT OUT", yellow=True)
        terminalreporter.line(cuda_missing() or "")


@pytest.fixture(autouse=True)
def threads_of_its_own():
    """A number of threads that a test asks for is that test's alone."""
    asked = threads._asked
    yield
    if threads._asked is not asked:
        import threadpoolctl  # which the test has used

        threads._asked = asked
        threadpoolctl.threadpool_limits(int(os.environ["OPENBLAS_NUM_THREADS"]), user_api="blas")


@pytest.fixture(params=DEVICES)
def backend(request):
    """Each device, with its own best kernels."""
    return backends.get(request.param)


@pytest.fixture(params=["compiled", "portable", "signal"])
def kernels(request):
    """Each kernel set by name."""
    return request.param


@pytest.fixture
def standin(monkeypatch):
    """The stand-in device as cuda:0, so that ``backends`` finds it for arrays on a GPU."""
    from helpers.standin import StandInBackend

    device = StandInBackend()
    device.asked = "cuda:0", "auto", False
    monkeypatch.setitem(registry._made, device.asked, device)
    return device


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """``command("train", ...)`` -> (exit code, standard output, standard error), in an empty folder."""
    from cnn import cli  # needs Typer and Rich, which a machine that only runs the GPU tests may lack

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["cnn", *map(str, arguments)])
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # else: `python -m pytest.cnn`
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def terminal(monkeypatch):
    """``terminal(60)`` makes standard output and standard error terminals of 60 columns."""

    def make(columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm")
        for stream in (sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True)

    return make


@pytest.fixture(scope="session")
def own_data(tmp_path_factory):
    """An .npz of one's own: 8x8 images whose class is the bright half."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 120), ("test", 40)):
        labels = random.integers(0, 2, count)
        images = random.integers(0, 60, (count, 20, 20), dtype=np.uint8)
        images[labels == 1, :10] += 150
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
    path = tmp_path_factory.mktemp("data") / "halves.npz"
    np.savez(path, **arrays, classes=np.array(["dark", "bright"]))
    return path
