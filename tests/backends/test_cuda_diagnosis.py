"""If CUDA cannot be used, each cause has its own sentence, with the command that corrects it."""

import shlex
import subprocess
import sys
from types import ModuleType

import pytest
from helpers.fake_cupy import CUDARuntimeError, DynamicLibNotFoundError, fake_cupy, raiser, wrong_gemm

import backends
from backends import registry
from backends.cuda import backend
from backends.cuda.backend import CudaBackend

PIP = f"{shlex.quote(sys.executable)} -m pip"
EITHER = f'{PIP} install "cupy-cuda12x[ctk]" (or cupy-cuda13x if nvidia-smi shows CUDA 13)'


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
    """Each way to have no GPU has its own sentence, with the command that corrects it."""

    @pytest.mark.parametrize(
        ("driver", "expected"),
        [
            (13010, f'CuPy is not installed: run {PIP} install "cupy-cuda13x[ctk]"'),
            (12040, f'CuPy is not installed: run {PIP} install "cupy-cuda12x[ctk]"'),
            (
                0,
                "CuPy is not installed, and no NVIDIA driver was found: if this machine has an NVIDIA GPU, "
                f"install its driver, then run {EITHER}",
            ),
        ],
    )
    def test_no_cupy(self, machine, driver, expected):
        machine([], driver)
        assert sentence(CudaBackend) == sentence(backend.count) == expected

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
                "the NVIDIA driver is too old (it supports CUDA 11.4, and CuPy needs CUDA 12): "
                "update the driver, and check with nvidia-smi",
            ),
            (
                "cupy-cuda13x",
                12040,
                "the NVIDIA driver is too old (it supports CUDA 12.4, and CuPy needs CUDA 13): "
                f"update the driver, and check with nvidia-smi; or run {PIP} uninstall -y cupy-cuda13x, "
                f'then {PIP} install "cupy-cuda12x[ctk]"',
            ),
        ],
    )
    def test_driver_missing_or_too_old(self, machine, package, driver, expected):
        cupy = fake_cupy(CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"))
        cupy.cuda.runtime.runtimeGetVersion = lambda: int(package[9:11]) * 1000
        machine([package], driver, cupy)
        assert sentence(CudaBackend) == sentence(backend.count) == expected

    @pytest.mark.parametrize("devices", [0, CUDARuntimeError("cudaErrorNoDevice: no device is detected")])
    def test_driver_without_a_gpu(self, machine, monkeypatch, devices):
        machine(["cupy-cuda12x"], 12040, fake_cupy(devices))
        assert sentence(CudaBackend) == "the NVIDIA driver finds no GPU: check with nvidia-smi"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert sentence(CudaBackend) == (
            "no CUDA device is visible, because CUDA_VISIBLE_DEVICES is '-1': "
            "run `unset CUDA_VISIBLE_DEVICES`, and check with nvidia-smi"
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
            f"cuda:0 is too old for the CUDA version of this CuPy: run {PIP} uninstall -y cupy-cuda13x, "
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
        assert backend.count() == devices
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
        ("package", "remedy"),
        [
            ("cupy-cuda13x", f'run {PIP} install "cupy-cuda13x[ctk]"'),
            ("cupy", "install the CUDA toolkit that this CuPy was built with"),
        ],
    )
    def test_toolkit_without_a_library(self, machine, error, missing, package, remedy):
        machine([package], 13000, fake_cupy(gemm=raiser(error)))
        assert sentence(CudaBackend) == f"cuda:0 lacks a part of the CUDA toolkit ({missing}): {remedy}"

    def test_any_other_failure_names_what_was_raised(self, machine):
        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=raiser(MemoryError("Out of memory\nat once"))))
        assert sentence(CudaBackend) == (
            "cuda:0 failed a small computation (MemoryError: Out of memory): check the GPU with nvidia-smi"
        )

    def test_wrong_product_is_no_device(self, machine):
        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=wrong_gemm))
        assert sentence(CudaBackend) == (
            "cuda:0 computes wrong results (a small product gave [[21.0, 57.0], [57.0, 201.0]] instead of "
            "[[20.0, 56.0], [56.0, 200.0]]): check the GPU with nvidia-smi"
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

    def test_this_machine_as_it_is_has_a_device_or_a_way_to_get_one(self, monkeypatch):
        monkeypatch.setattr(registry, "_made", {})
        devices = backends.available()
        assert ("cuda:0" in devices) != ("cuda" in devices)
        said = str(devices.get("cuda", "nothing to run"))
        assert "\n" not in said
        assert any(remedy in said for remedy in ("run ", "nvidia-smi"))


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
