"""The CUDA backend where there is no GPU: what it says, and that its products read memory rightly.

``fake_cupy`` stands for CuPy: numpy arrays with CuPy's attributes, devices that only count, and a
``gemmEx`` that works on raw addresses, column-major, as cuBLAS documents it.
"""

import ctypes
import itertools
import shlex
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from backends import cuda, cuda_diagnosis
from backends.cuda import CudaBackend, blas_layout

PIP = f"{shlex.quote(sys.executable)} -m pip"
EITHER = f'{PIP} install "cupy-cuda12x[ctk]" (cupy-cuda13x where nvidia-smi shows CUDA 13)'


class CUDARuntimeError(RuntimeError):
    pass


class DynamicLibNotFoundError(RuntimeError):
    pass


class FakeDevice:
    current = 0
    synchronized = 0
    compute_capability = "90"
    mem_info = (60, 100)

    def __init__(self, index):
        self.id = index
        self.before = []

    def __enter__(self):
        self.before.append(FakeDevice.current)
        FakeDevice.current = self.id

    def __exit__(self, *exception):
        FakeDevice.current = self.before.pop()

    def synchronize(self):
        FakeDevice.synchronized += 1


class FakeArray(np.ndarray):
    """Host memory that says it lies on the device that was current when it was made."""

    def __array_finalize__(self, parent):
        self.index = parent.index if isinstance(parent, FakeArray) else FakeDevice.current

    @property
    def device(self):
        return SimpleNamespace(id=self.index)

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, host):
        assert type(host) is np.ndarray
        assert (host.dtype, host.shape) == (self.dtype, self.shape)
        assert self.flags.forc
        self[...] = host


def gemm_ex(handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, *how):
    """C = alpha op(A) op(B) + beta C, column-major, with (compute, algorithm) as ``how``."""
    dtype = np.dtype({0: np.float32, 1: np.float64}[c_type])
    assert (a_type, b_type) == (c_type, c_type)
    assert how == ({0: 68, 1: 70}[c_type], -1)

    def matrix(address, rows, columns, leading):
        assert leading >= rows > 0
        assert columns > 0
        size = ((columns - 1) * leading + rows) * dtype.itemsize
        numbers = np.frombuffer((ctypes.c_byte * size).from_address(address), dtype)
        return np.lib.stride_tricks.as_strided(
            numbers, (rows, columns), (dtype.itemsize, leading * dtype.itemsize)
        )

    a = matrix(a, k, m, lda).T if op_a else matrix(a, m, k, lda)
    b = matrix(b, n, k, ldb).T if op_b else matrix(b, k, n, ldb)
    c = matrix(c, m, n, ldc)
    alpha, beta = (
        np.frombuffer((ctypes.c_byte * dtype.itemsize).from_address(p), dtype)[0] for p in (alpha, beta)
    )
    c[...] = alpha * (a @ b) + (beta * c if beta else 0)


def copy_into(array, out=None):
    """As cupy.asnumpy: a copy in host memory, or into ``out``."""
    if out is None:
        return np.array(array)
    np.copyto(out, array)
    return out


def fake_cupy(devices=1, gemm=gemm_ex):
    """``devices`` is a number, or what asking for it raises."""

    def device_count():
        if isinstance(devices, Exception):
            raise devices
        return devices

    def on_device(function):
        return lambda *args, **kwargs: function(*args, **kwargs).view(FakeArray)

    cupy = ModuleType("cupy")
    cupy.__getattr__ = lambda name: getattr(np, name)
    cupy.__version__ = "14.2.0"
    cupy.ndarray = FakeArray
    for name in ("arange", "empty", "zeros"):
        setattr(cupy, name, on_device(getattr(np, name)))
    cupy.asarray = on_device(lambda host, dtype=None: np.array(host, dtype=dtype))
    cupy.asnumpy = copy_into
    cupy.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 30)
    cupy.cuda = SimpleNamespace(
        Device=FakeDevice,
        cublas=SimpleNamespace(
            gemmEx=gemm,
            getVersion=lambda handle: 120902,
            CUBLAS_COMPUTE_32F=68,
            CUBLAS_COMPUTE_32F_FAST_TF32=77,
            CUBLAS_COMPUTE_64F=70,
            CUBLAS_GEMM_DEFAULT=-1,
        ),
        get_cublas_handle=lambda: 1,
        runtime=SimpleNamespace(
            getDeviceCount=device_count,
            getDeviceProperties=lambda index: {"name": b"A GPU"},
            driverGetVersion=lambda: 13010,
            runtimeGetVersion=lambda: 12090,
        ),
    )
    return cupy


@pytest.fixture
def machine(monkeypatch):
    """``machine(packages, driver, cupy)`` makes this look like a machine where just these are installed."""
    for variable in ("CNN_DEVICE", "CUDA_VISIBLE_DEVICES", "CUPY_TF32"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(backends, "_made", {})

    def install(packages=(), driver=0, cupy=None):
        found = [SimpleNamespace(name=name) for name in ("numpy", "cupy-xarray", *packages)]
        monkeypatch.setattr(cuda_diagnosis.metadata, "distributions", lambda: found)
        monkeypatch.setattr(cuda_diagnosis, "_driver_version", lambda: driver)
        monkeypatch.setitem(sys.modules, "cupy", cupy)  # None: cannot be imported

    return install


@pytest.fixture
def gpu(machine):
    """A backend on the second of two fake GPUs."""
    machine(["cupy-cuda12x"], 13000, fake_cupy(2))
    return CudaBackend(1)


def sentence(ask):
    with pytest.raises(backends.DeviceUnavailable) as caught:
        ask()
    return str(caught.value)


class TestImport:
    def test_neither_package_imports_cupy_before_a_backend_is_made(self):
        code = (
            "import sys, backends.cuda, cnn\n"
            "print({name.split('.')[0] for name in sys.modules} & {'cupy', 'cupyx', 'cupy_backends'})"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout == "set()\n"


class TestDiagnosis:
    """Each way to have no GPU has its own sentence, with the command that mends it."""

    @pytest.mark.parametrize(
        ("driver", "expected"),
        [
            (13010, f'CuPy is not installed: run {PIP} install "cupy-cuda13x[ctk]"'),
            (12040, f'CuPy is not installed: run {PIP} install "cupy-cuda12x[ctk]"'),
            (
                0,
                "CuPy is not installed, and no NVIDIA driver was found: where there is an NVIDIA GPU, "
                f"install its driver, then run {EITHER}",
            ),
        ],
    )
    def test_no_cupy(self, machine, driver, expected):
        machine([], driver)
        assert sentence(CudaBackend) == sentence(cuda.count) == expected

    @pytest.mark.parametrize(
        ("driver", "install"), [(12040, f'{PIP} install "cupy-cuda12x[ctk]"'), (0, EITHER)]
    )
    def test_two_cupys_are_found_before_either_is_imported(self, machine, driver, install):
        machine(["cupy_cuda13x", "CuPy-cuda12x"], driver)  # cupy itself cannot be imported here
        assert sentence(CudaBackend) == (
            "several CuPy packages are installed, cupy-cuda12x and cupy-cuda13x, and overwrite each other: "
            f"run {PIP} uninstall -y cupy-cuda12x cupy-cuda13x, then {install}"
        )

    @pytest.mark.parametrize(
        ("package", "wanted"), [("cupy-cuda12x", '"cupy-cuda12x[ctk]"'), ("cupy", "cupy")]
    )
    def test_cupy_that_lost_its_files(self, machine, package, wanted):
        machine([package], 12040)
        assert sentence(CudaBackend) == (
            f"{package} is installed but cannot be imported (ModuleNotFoundError: import of cupy halted; "
            f"None in sys.modules): run {PIP} install --force-reinstall {wanted}"
        )

    def test_cupy_that_fails_in_its_own_import(self, machine, monkeypatch, tmp_path):
        (tmp_path / "cupy.py").write_text(
            "cause = OSError('libcudart.so.12: no such file')\n"
            "raise ImportError('\\n=====\\nFailed to import CuPy.') from cause\n"
        )
        machine(["cupy-cuda12x"], 12040)
        monkeypatch.delitem(sys.modules, "cupy")
        monkeypatch.syspath_prepend(tmp_path)
        assert sentence(CudaBackend) == (
            "cupy-cuda12x is installed but cannot be imported (OSError: libcudart.so.12: no such file): "
            f'run {PIP} install --force-reinstall "cupy-cuda12x[ctk]"'
        )

    @pytest.mark.parametrize(
        ("package", "driver", "expected"),
        [
            ("cupy-cuda12x", 0, "no NVIDIA driver was found: install it, and check with nvidia-smi"),
            (
                "cupy-cuda12x",
                11040,
                "the NVIDIA driver is too old, it supports CUDA 11.4 and CuPy needs CUDA 12: "
                "update the driver, and check with nvidia-smi",
            ),
            (
                "cupy-cuda13x",
                12040,
                "the NVIDIA driver is too old, it supports CUDA 12.4 and CuPy needs CUDA 13: "
                f"update the driver, and check with nvidia-smi; or run {PIP} uninstall -y cupy-cuda13x, "
                f'then {PIP} install "cupy-cuda12x[ctk]"',
            ),
        ],
    )
    def test_driver_missing_or_too_old(self, machine, package, driver, expected):
        cupy = fake_cupy(CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"))
        cupy.cuda.runtime.runtimeGetVersion = lambda: int(package[9:11]) * 1000
        machine([package], driver, cupy)
        assert sentence(CudaBackend) == sentence(cuda.count) == expected

    @pytest.mark.parametrize("devices", [0, CUDARuntimeError("cudaErrorNoDevice: no device is detected")])
    def test_driver_without_a_gpu(self, machine, monkeypatch, devices):
        machine(["cupy-cuda12x"], 12040, fake_cupy(devices))
        assert sentence(CudaBackend) == "the NVIDIA driver finds no GPU: check with nvidia-smi"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert sentence(CudaBackend) == (
            "no CUDA device is visible, CUDA_VISIBLE_DEVICES is '-1': "
            "run unset CUDA_VISIBLE_DEVICES, and check with nvidia-smi"
        )

    def test_driver_that_does_not_start(self, machine):
        machine(["cupy-cuda12x"], 12040, fake_cupy(CUDARuntimeError("cudaErrorUnknown: unknown error")))
        assert sentence(CudaBackend) == (
            "CUDA does not start (CUDARuntimeError: cudaErrorUnknown: unknown error): "
            "check the NVIDIA driver with nvidia-smi"
        )

    def test_gpu_older_than_the_packages_cuda(self, machine):
        cupy = fake_cupy(1)
        cupy.arange = lambda *_, **__: (_ for _ in ()).throw(
            RuntimeError("nvrtc: error: invalid value for --gpu-architecture (-arch)")
        )
        machine(["cupy-cuda13x"], 13000, cupy)
        assert sentence(CudaBackend) == (
            f"cuda:0 is older than this CuPy's CUDA: run {PIP} uninstall -y cupy-cuda13x, "
            f'then {PIP} install "cupy-cuda12x[ctk]"'
        )

    @pytest.mark.parametrize(
        ("devices", "there"),
        [
            (1, "1 CUDA device, cuda:0"),
            (2, "2 CUDA devices, cuda:0 and cuda:1"),
            (3, "3 CUDA devices, cuda:0, cuda:1 and cuda:2"),
        ],
    )
    def test_device_that_does_not_exist(self, machine, devices, there):
        machine(["cupy-cuda12x"], 12040, fake_cupy(devices))
        assert cuda.count() == devices
        for index in (devices, 99):
            expected = f"cuda:{index} does not exist: this machine has {there}"
            assert sentence(lambda index=index: backends.get(f"cuda:{index}")) == expected

    @pytest.mark.parametrize(
        ("error", "missing"),
        [
            (
                DynamicLibNotFoundError('Failure finding "libnvrtc.so.12": No such file: libnvrtc.so.12\n'),
                'Failure finding "libnvrtc.so.12"',
            ),
            (ImportError("libcublas.so.12: cannot open shared object file"), "libcublas.so.12"),
            (
                RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers"),
                "Failed to find CUDA headers",
            ),
        ],
    )
    @pytest.mark.parametrize(
        ("package", "mend"),
        [
            ("cupy-cuda13x", f'run {PIP} install "cupy-cuda13x[ctk]"'),
            ("cupy", "install the CUDA toolkit that this CuPy was built with"),
        ],
    )
    def test_toolkit_without_a_library(self, machine, error, missing, package, mend):
        machine([package], 13000, fake_cupy(gemm=raiser(error)))
        assert sentence(CudaBackend) == f"cuda:0 lacks a part of the CUDA toolkit ({missing}): {mend}"

    def test_any_other_failure_names_what_was_raised(self, machine):
        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=raiser(MemoryError("Out of memory\nat once"))))
        assert sentence(CudaBackend) == (
            "cuda:0 failed a small computation (MemoryError: Out of memory): check the GPU with nvidia-smi"
        )

    def test_wrong_product_is_no_device(self, machine):
        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=wrong_gemm))
        assert sentence(CudaBackend) == (
            "cuda:0 computes wrongly, a small product gave [[21.0, 57.0], [57.0, 201.0]] and not "
            "[[20.0, 56.0], [56.0, 200.0]]: check the GPU with nvidia-smi"
        )

    def test_signal_without_cublas_is_told_when_it_is_asked_for(self, gpu, monkeypatch, tmp_path):
        (tmp_path / "signal.py").write_text("raise ImportError('Failure finding \"libcublas.so.12\": none')")
        for name in ("cupyx", "cupyx.scipy"):
            package = ModuleType(name)
            package.__path__ = [str(tmp_path)]
            monkeypatch.setitem(sys.modules, name, package)
        monkeypatch.delitem(sys.modules, "cupyx.scipy.signal", raising=False)
        assert sentence(lambda: gpu.signal) == (
            'cuda:1 lacks a part of the CUDA toolkit (Failure finding "libcublas.so.12"): '
            f'run {PIP} install "cupy-cuda12x[ctk]"'
        )

    def test_this_machine_as_it_is_has_a_device_or_a_mend(self, monkeypatch):
        monkeypatch.setattr(backends, "_made", {})
        devices = backends.available()
        assert ("cuda:0" in devices) != ("cuda" in devices)
        said = str(devices.get("cuda", "nothing to run"))
        assert "\n" not in said
        assert any(mend in said for mend in ("run ", "nvidia-smi"))


class TestGet:
    def test_explicit_cuda_never_falls_back(self, machine):
        machine([], 13010)
        for spec in ("cuda", "cuda:0", "cuda:99"):
            assert sentence(lambda spec=spec: backends.get(spec)).startswith("CuPy is not installed")

    def test_cuda_in_the_environment_is_explicit(self, machine, monkeypatch):
        machine([], 13010)
        monkeypatch.setenv("CNN_DEVICE", "cuda")
        assert sentence(backends.get).startswith("CuPy is not installed")
        assert backends.get("cpu").name == "cpu"

    def test_auto_takes_the_cpu_and_says_why(self, machine):
        machine([], 13010)
        device = backends.get("auto")
        assert device.name == "cpu"
        assert device.reason == "no CUDA: CuPy is not installed"

    def test_auto_takes_cuda_where_it_works(self, machine):
        machine(["cupy-cuda12x"], 12040, fake_cupy())
        device = backends.get("auto")
        assert (device.name, device.reason) == ("cuda:0", "CUDA works here")
        assert list(backends.available()) == ["cpu", "cuda:0"]

    def test_available_keeps_the_reason(self, machine):
        machine([], 13010)
        devices = backends.available()
        assert list(devices) == ["cpu", "cuda"]
        assert str(devices["cuda"]) == f'CuPy is not installed: run {PIP} install "cupy-cuda13x[ctk]"'

    def test_unknown_kernels(self, machine):
        machine(["cupy-cuda12x"], 12040, fake_cupy())
        with pytest.raises(backends.ArgumentError, match="unknown kernels 'quick'"):
            backends.get("cuda", kernels="quick")


class TestContract:
    """What can be seen of the contract without a GPU: crossings, devices, conversions."""

    def test_probing_is_no_crossing(self, gpu):
        assert gpu.crossings == 0

    def test_host_data_crosses_and_device_arrays_do_not(self, gpu):
        x = gpu.asarray([[1.5, 2.5]], dtype="float32")
        assert (x.dtype, gpu.owns(x), gpu.crossings) == (np.float32, True, 1)
        again = gpu.asarray(x, dtype="float64")
        assert (again.dtype, again.tolist(), gpu.crossings) == (np.float64, [[1.5, 2.5]], 1)
        gpu.asarray(x, out=again)
        assert gpu.crossings == 1
        host = gpu.to_host(x)
        assert (type(host), host.tolist(), gpu.crossings) == (np.ndarray, [[1.5, 2.5]], 2)
        host[...] = 0
        assert x.tolist() == [[1.5, 2.5]]

    @pytest.mark.parametrize("view", [np.s_[:, :], np.s_[::2, 1:3]])
    def test_data_is_cast_and_spread_into_out(self, gpu, view):
        room = gpu.xp.zeros((4, 4), "float32")
        out = room[view]
        rows = np.arange(out.size, dtype="int64").reshape(out.shape)
        assert gpu.asarray(rows, out=out) is out
        assert out.tolist() == rows.tolist()
        gpu.asarray(7, out=out)
        assert (out == 7).all()
        assert (room == 7).sum() == out.size
        assert gpu.crossings == 2

    def test_everything_is_made_on_the_backends_own_device(self, gpu):
        made = [
            gpu.zeros(3, "float32"),
            gpu.asarray([1]),
            gpu.workspace(8),
            gpu.asarray(np.ones(2), dtype="int8"),
        ]
        assert [array.device.id for array in made] == [1, 1, 1, 1]
        assert all(map(gpu.owns, made))
        assert not gpu.owns(gpu.xp.zeros(3))  # outside active(), on cuda:0
        assert not gpu.owns(np.zeros(3))
        assert not gpu.owns("cuda:1")

    def test_active_may_be_entered_again(self, gpu):
        with gpu.active():
            with gpu.active():
                gpu.zeros(1, "uint8")
            assert FakeDevice.current == 1
        assert FakeDevice.current == 0

    def test_take_gives_rows(self, gpu):
        rows = gpu.asarray(np.arange(6).reshape(3, 2))
        out = gpu.xp.zeros((2, 2), rows.dtype)
        assert gpu.take(rows, gpu.asarray([2, 0]), out) is out
        assert out.tolist() == [[4, 5], [0, 1]]

    def test_synchronize_waits_for_the_device(self, gpu):
        before = FakeDevice.synchronized
        gpu.synchronize()
        assert FakeDevice.synchronized == before + 1

    def test_timer_waits_for_the_end_and_gives_seconds(self, gpu):
        log = []

        class Event:
            def record(self):
                log.append(("record", FakeDevice.current))

            def synchronize(self):
                log.append("synchronize")

        gpu.xp.cuda.Event = Event
        gpu.xp.cuda.get_elapsed_time = lambda start, end: 0.0 if start is end else 1500.0
        with gpu.timer() as timer:
            assert timer.seconds == 0
            log.append("work")
        assert timer.seconds == 1.5
        assert log == [("record", 1), "synchronize", "work", ("record", 1), "synchronize"]

    def test_memory_and_description(self, gpu):
        assert gpu.memory() == {"used": 30, "free": 60, "total": 100}
        assert gpu.describe() == {
            "device": "cuda:1",
            "gpu": "A GPU",
            "compute_capability": "9.0",
            "driver": "CUDA 13.1",
            "runtime": "CUDA 12.9",
            "cublas": "12.9.2",
            "tf32": False,
            "kernels": gpu.kernels.name,
            "cupy": "14.2.0",
            "numpy": np.__version__,
        }


# How a (rows, columns) matrix may lie in a larger one: (shape of that, the way to the matrix).
TAKEN_AS_THEY_ARE = {
    "whole": lambda m, n: ((m, n), lambda x: x),
    "transposed": lambda m, n: ((n, m), lambda x: x.T),
    "rows": lambda m, n: ((m + 3, n), lambda x: x[2:-1]),
    "columns": lambda m, n: ((m, n + 3), lambda x: x[:, 1:-2]),
    "transposed columns": lambda m, n: ((n, m + 2), lambda x: x[:, 2:].T),
    "every second row": lambda m, n: ((2 * m, n), lambda x: x[::2]),
}
COPIED = {
    "every second column": lambda m, n: ((m, 2 * n), lambda x: x[:, ::2]),
    "rows backwards": lambda m, n: ((m, n), lambda x: x[::-1]),
}


class TestMatmul:
    @pytest.fixture
    def matrices(self, gpu):
        """``matrices(way, shape, dtype)`` -> (the larger matrix, the view in it), small whole numbers."""
        rng = np.random.default_rng(0)

        def make(way, shape, dtype):
            larger, view = way(*shape)
            whole = gpu.asarray(rng.integers(-4, 5, larger), dtype=dtype)
            assert view(whole).shape == shape
            return whole, view(whole)

        return make

    @pytest.fixture
    def gemms(self, gpu, monkeypatch):
        """The calls of cuBLAS; the product that copies is not to be used."""
        calls = []

        def gemm(*args):
            calls.append(args)
            gemm_ex(*args)

        gpu.xp.cuda.cublas.gemmEx = gemm
        return calls

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("accumulate", [False, True])
    def test_is_one_gemm_for_every_view_that_blas_can_read(self, gpu, matrices, gemms, dtype, accumulate):
        ways = itertools.product(TAKEN_AS_THEY_ARE.values(), repeat=3)
        sizes = itertools.cycle([(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 5), (2, 1, 1), (1, 1, 1)])
        count = 0
        for (a_way, b_way, out_way), (m, k, n) in zip(ways, sizes, strict=False):
            (_, a), (_, b) = matrices(a_way, (m, k), dtype), matrices(b_way, (k, n), dtype)
            room, out = matrices(out_way, (m, n), dtype)
            expected, kept = np.array(out) * accumulate + np.array(a) @ np.array(b), np.array(room)
            assert gpu.matmul(a, b, out, accumulate) is out
            assert out.tolist() == expected.tolist()
            out[...] = out_way(m, n)[1](kept)
            assert room.tolist() == kept.tolist(), "wrote beside out"
            count += 1
        assert len(gemms) == count == 6**3

    @pytest.mark.parametrize("accumulate", [False, True])
    @pytest.mark.parametrize("way", COPIED)
    @pytest.mark.parametrize("strange", ["a", "b", "out"])
    def test_other_views_are_right_too(self, gpu, matrices, gemms, way, strange, accumulate):
        shapes = {"a": (3, 4), "b": (4, 5), "out": (3, 5)}
        a, b, out = (
            matrices(COPIED[way] if name == strange else TAKEN_AS_THEY_ARE["whole"], shape, "float32")[1]
            for name, shape in shapes.items()
        )
        expected = np.array(out) * accumulate + np.array(a) @ np.array(b)
        assert gpu.matmul(a, b, out, accumulate).tolist() == expected.tolist()
        assert gemms == []

    @pytest.mark.parametrize("dtypes", [("float16",) * 3, ("int64",) * 3, ("float32", "float32", "float64")])
    def test_other_dtypes_are_right_too(self, gpu, matrices, gemms, dtypes):
        shapes = ((3, 4), (4, 5), (3, 5))
        whole = TAKEN_AS_THEY_ARE["whole"]
        a, b, out = (matrices(whole, shape, dtype)[1] for shape, dtype in zip(shapes, dtypes, strict=True))
        expected = np.array(a) @ np.array(b)
        assert gpu.matmul(a, b, out).tolist() == expected.tolist()
        assert gpu.matmul(a, b, out, accumulate=True).tolist() == (2 * expected).tolist()
        assert gemms == []

    def test_old_contents_of_out_do_not_matter(self, gpu, matrices):
        (_, a), (_, b) = (matrices(TAKEN_AS_THEY_ARE["whole"], (2, 2), "float32") for _ in range(2))
        out = gpu.asarray(np.full((2, 2), np.nan), dtype="float32")
        assert gpu.matmul(a, b, out).tolist() == (np.array(a) @ np.array(b)).tolist()

    def test_a_product_over_nothing_is_zero(self, gpu, gemms):
        full = gpu.xp.zeros((3, 3), "float32")
        out = gpu.xp.zeros((3, 3), "float32")
        out[...] = 7
        assert (gpu.matmul(full[:, :0], full[:0], out, accumulate=True) == 7).all()
        assert (gpu.matmul(full[:, :0], full[:0], out) == 0).all()
        assert gpu.matmul(full[:0], full, out[:0]).shape == (0, 3)
        assert gpu.matmul(full, full[:, :0], out[:, :0]).shape == (3, 0)
        assert gemms == []

    @pytest.mark.parametrize(
        "shapes",
        [((2, 3), (4, 5), (2, 5)), ((2, 3), (3, 5), (2, 4)), ((3,), (3, 2), (2,)), ((2, 3), (3,), (2,))],
    )
    def test_shapes_that_do_not_fit_are_refused(self, gpu, gemms, shapes):
        a, b, out = (gpu.zeros(int(np.prod(shape)), "float32").reshape(shape) for shape in shapes)
        with pytest.raises(backends.ArgumentError, match=r"expected \(m, k\) and \(k, n\) into \(m, n\)"):
            gpu.matmul(a, b, out)
        assert gemms == []

    def test_cupys_switch_for_tf32_holds_for_float32_only(self, machine, monkeypatch):
        kinds = []

        def gemm(*args):
            kinds.append(args[-2])
            gemm_ex(*args[:-2], {77: 68}.get(args[-2], args[-2]), args[-1])

        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=gemm))
        monkeypatch.setenv("CUPY_TF32", "1")
        gpu = CudaBackend()
        for dtype in ("float32", "float64"):
            one = gpu.xp.zeros((1, 1), dtype)
            gpu.matmul(one, one, gpu.xp.zeros((1, 1), dtype))
        assert kinds == [77, 77, 70]  # the first is the probe's
        assert gpu.describe()["tf32"] is True


class TestBlasLayout:
    @given(data=st.data())
    def test_leads_to_every_number_that_the_strides_lead_to(self, data):
        itemsize = data.draw(st.sampled_from([4, 8]))
        shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        stride = st.integers(-2, 6).map(lambda step: step * itemsize) | st.integers(-20, 20)
        strides = data.draw(st.tuples(stride, stride))
        found = blas_layout(shape, strides, itemsize)
        steps = [step / itemsize for step in strides]
        readable = [
            (shape[axis] == 1 or steps[axis] == 1)
            and (shape[1 - axis] == 1 or (steps[1 - axis].is_integer() and steps[1 - axis] >= shape[axis]))
            for axis in (0, 1)
        ]
        assert (found is not None) == any(readable)
        if found is not None:
            by_columns, leading = found
            assert leading >= shape[0 if by_columns else 1]
            for i, j in itertools.product(*map(range, shape)):
                place = j * leading + i if by_columns else i * leading + j
                assert place * itemsize == i * strides[0] + j * strides[1]

    @pytest.mark.parametrize(
        ("matrix", "expected"),
        [
            (np.zeros((3, 4)), (False, 4)),
            (np.zeros((3, 4)).T, (True, 4)),
            (np.zeros((3, 9))[:, 2:5], (False, 9)),
            (np.zeros((3, 9))[:, 2:3], (False, 9)),  # a column of a matrix
            (np.zeros((3, 9))[:1, ::2], (True, 2)),  # a row with gaps is a column-major matrix of one row
            (np.broadcast_to(np.zeros((1, 4)), (3, 4)), None),
            (np.zeros((3, 4))[::-1], None),
            (np.zeros((6, 8))[::2, ::2], None),
        ],
    )
    def test_by_example(self, matrix, expected):
        assert blas_layout(matrix.shape, matrix.strides, matrix.itemsize) == expected


def raiser(error):
    def gemm(*args):
        raise error

    return gemm


def wrong_gemm(*args):
    """One too much everywhere."""
    gemm_ex(*args)
    m, n, address = args[3], args[4], args[14]
    product = np.frombuffer((ctypes.c_byte * (4 * m * n)).from_address(address), np.float32)
    product += 1
