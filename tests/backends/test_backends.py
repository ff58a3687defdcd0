"""get, of, available, and the contract that every backend keeps."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import ROOT

import backends
from backends import ArgumentError, CpuBackend, DeviceUnavailable
from backends.cpu import threads


class TestSelection:
    def test_a_device_is_made_once(self):
        assert backends.get("cpu") is backends.get("cpu")
        assert backends.get("cpu", kernels="signal") is not backends.get("cpu", kernels="portable")

    def test_auto_takes_what_the_environment_names_and_says_so(self, monkeypatch):
        monkeypatch.setenv("CNN_DEVICE", "cpu")
        device = backends.get()
        assert (device.name, device.reason) == ("cpu", "set by CNN_DEVICE")

    def test_what_is_asked_for_comes_before_the_environment(self, monkeypatch):
        monkeypatch.setenv("CNN_DEVICE", "nonsense")
        assert backends.get("cpu").reason == "asked for"

    def test_a_wrong_name_in_the_environment_is_told_as_such(self, monkeypatch):
        monkeypatch.setenv("CNN_DEVICE", "gpu")
        with pytest.raises(
            ArgumentError, match="unknown device 'gpu' in the environment variable CNN_DEVICE"
        ):
            backends.get()

    @pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "cpu:0", None, 0])
    def test_unknown_names(self, name):
        with pytest.raises(ArgumentError, match="expected auto, cpu, cuda or cuda:N"):
            backends.get(name)

    def test_unknown_kernels(self):
        with pytest.raises(
            ArgumentError, match="unknown kernels 'quick': expected auto, compiled, portable or signal"
        ):
            backends.get("cpu", kernels="quick")

    def test_threads_limit_the_linear_algebra_library(self):
        threadpoolctl = pytest.importorskip("threadpoolctl")
        before = backends.get("cpu").describe()["threads"]
        try:
            assert backends.get("cpu", threads=1).describe()["threads"] == 1
            assert backends.get("cpu").describe()["threads"] == 1  # None leaves it as it is
        finally:
            threadpoolctl.threadpool_limits(limits=before)

    @pytest.mark.parametrize("threads", [0, 99999, "2", 1.5])
    def test_threads_that_cannot_be(self, threads):
        with pytest.raises(ArgumentError, match=f"threads is {threads!r}, expected a whole number from 1"):
            backends.get("cpu", threads=threads)

    def test_of_an_array(self, backend):
        assert backends.of(backend.asarray(np.zeros(3))).name == backend.name

    def test_of_something_else(self):
        with pytest.raises(ArgumentError, match="no backend owns a list"):
            backends.of([1, 2])

    def test_available_has_a_backend_or_a_reason_for_every_device(self):
        devices = backends.available()
        assert devices["cpu"].name == "cpu"
        for name, device in devices.items():
            assert device.name == name if not isinstance(device, DeviceUnavailable) else str(device)


class TestLibraries:
    """What may be missing, and what is not loaded before it is needed."""

    def python(self, code):
        """The lines that ``code`` prints, in a process of its own."""
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def test_importing_loads_only_what_is_always_needed(self):
        late = {"cupy", "cupyx", "scipy.signal", "numba", "threadpoolctl"}
        (found,) = self.python(f"import sys, backends, cnn; print({late} & set(sys.modules))")
        assert found == "set()"

    def test_without_numba_everything_works_and_the_reason_is_told(self):
        first, second, third = self.python("""
import sys
sys.modules["numba"] = None  # as if it were not installed
import backends, cnn
device = backends.get("cpu")
print(device.kernels.name, "|", device.slower)
try:
    backends.get("cpu", kernels="compiled")
except backends.DeviceUnavailable as error:
    print(error)
network = cnn.models.lenet5()
network.build((1, 28, 28), backend=device)
print(network.predict(cnn.data.load("mnist")[1].images[:2]).shape)
""")
        assert first.startswith("portable | numba is needed for the compiled kernels and cannot be used")
        assert "-m pip install numba" in second
        assert third == "(2, 10)"

    def test_without_threadpoolctl_threads_cannot_be_limited(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "threadpoolctl", None)
        assert backends.get("cpu", kernels="portable").describe()["blas"] == "unknown"
        before = threads.count()
        with pytest.raises(
            ArgumentError,
            match=r"^threadpoolctl is needed to limit the threads to 1 .*-m pip install threadpoolctl",
        ):
            backends.get("cpu", threads=1)
        assert threads.count() == before


class TestContract:
    @pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
    def test_there_and_back(self, backend, dtype):
        host = np.arange(24).reshape(2, 3, 4).astype(dtype)
        back = backend.to_host(backend.asarray(host))
        assert back.dtype == host.dtype
        np.testing.assert_array_equal(back, host)

    def test_what_comes_back_is_the_callers(self, backend):
        array = backend.asarray(np.zeros(4))
        backend.to_host(array)[:] = 1
        assert not backend.to_host(array).any()

    def test_into_an_array(self, backend):
        out = backend.xp.empty((2, 3), dtype=backend.xp.float32)
        assert backend.asarray(np.arange(6).reshape(2, 3), out=out) is out
        assert backend.to_host(out).tolist() == [[0, 1, 2], [3, 4, 5]]

    def test_crossings_are_counted(self, backend):
        before = backend.crossings
        array = backend.asarray(np.zeros(4))
        backend.xp.add(array, 1, out=array)
        backend.to_host(array)
        assert backend.crossings == before + 2

    def test_it_owns_its_arrays_alone(self, backend):
        assert backend.owns(backend.xp.zeros(2))
        assert not backend.owns([0, 0])
        assert not backend.owns(None)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_zeros_start_on_a_256_byte_boundary(self, backend, dtype):
        for size in (1, 5, 1000):
            vector = backend.zeros(size, dtype)
            address = vector.ctypes.data if backend.name == "cpu" else vector.data.ptr
            assert (vector.shape, str(vector.dtype), address % 256) == ((size,), dtype, 0)
            assert not backend.to_host(vector).any()

    def test_take(self, backend):
        rows = backend.asarray(np.arange(12).reshape(4, 3))
        out = backend.xp.empty((2, 3), dtype=rows.dtype)
        backend.take(rows, backend.asarray(np.array([3, 0])), out)
        assert backend.to_host(out).tolist() == [[9, 10, 11], [0, 1, 2]]

    def test_workspace_is_shared_and_grows(self, backend):
        small = backend.workspace(100)
        assert small.nbytes == 100
        assert backend.workspace(1 << 20).nbytes == 1 << 20
        assert backend.workspace(50).nbytes == 50

    def test_each_thread_has_a_workspace_of_its_own(self):
        device = CpuBackend()
        held = [device.workspace(1000)]
        thread = threading.Thread(target=lambda: held.append(device.workspace(1000)))
        thread.start()
        thread.join()
        addresses = {array.ctypes.data for array in held}
        assert len(addresses) == 2

    def test_a_timer_measures_seconds(self, backend):
        with backend.timer() as timer:
            backend.xp.zeros(1000).sum()
            backend.synchronize()
        assert 0 < timer.seconds < 60

    def test_memory_and_description(self, backend):
        memory = backend.memory()
        assert 0 < memory["used"] < memory["total"]
        assert backend.describe()["device"] == backend.name

    def test_a_graph_repeats_the_step(self, backend):
        array = backend.xp.zeros(3)

        def step():
            backend.xp.add(array, 1, out=array)

        repeat = backend.graph(step, state=[array])
        for _ in range(3):
            repeat()
        assert backend.to_host(array).tolist() == [3, 3, 3]

    def test_the_notebooks_loop_runs_on_the_backend_alone(self, backend):
        random = np.random.default_rng(0)
        image, kernel = random.standard_normal((8, 8)), random.standard_normal((3, 3))
        y = backend.signal.correlate2d(backend.asarray(image), backend.asarray(kernel), "valid")
        expected = [[(image[i : i + 3, j : j + 3] * kernel).sum() for j in range(6)] for i in range(6)]
        np.testing.assert_allclose(backend.to_host(y), expected, rtol=1e-12)
