"""CUDA that fails in the middle of work: each way has its sentence, whatever was being done."""

import pickle
import threading

import numpy as np
import pytest
from helpers.fake_cupy import (
    CUBLASError,
    CUDADriverError,
    CUDARuntimeError,
    FakeDevice,
    OutOfMemoryError,
    fake_cupy,
    raiser,
)

import backends
from backends import DeviceLost, DeviceUnavailable, OutOfMemory
from backends.cuda.backend import CudaBackend
from backends.cuda.diagnosis import require_capability

FULL = OutOfMemoryError(1_288_490_189, 5_000)
ILLEGAL = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")


MEND = "use smaller batches, or run nvidia-smi to see which other processes use memory there"


def full(found):
    return f"cuda:1 is out of memory: {found}; {MEND}"


def lost(said):
    return (
        f"cuda:1 is lost ({said}): check it with nvidia-smi; this process cannot use it any more, "
        "so start again, or continue on the CPU"
    )


def fails_with(error):
    def fails(*_, **__):
        raise error

    return fails


def add(gpu, x):
    with gpu.active():
        gpu.xp.add(x, x)


def time_nothing(gpu, _):
    with gpu.timer():
        pass


# What is done, and what of CuPy's fails in it.
WORK = {
    "an allocation": (lambda gpu, _: gpu.zeros(3, "float32"), "zeros"),
    "a growing buffer": (lambda gpu, _: gpu.workspace(100), "empty"),
    "a product": (lambda gpu, x: gpu.matmul(x, x, x.copy()), "cuda.cublas.gemmEx"),
    "elementwise": (add, "add"),
    "asarray": (lambda gpu, _: gpu.asarray([1.0]), "asarray"),
    "to_host": (lambda gpu, x: gpu.to_host(x), "asnumpy"),
    "waiting": (lambda gpu, _: gpu.synchronize(), "cuda.Device.synchronize"),
    "timing": (time_nothing, "cuda.Event"),
    "entering": (lambda gpu, _: gpu.zeros(3, "float32"), "cuda.Device.__enter__"),
    "leaving": (lambda gpu, _: gpu.zeros(3, "float32"), "cuda.Device.__exit__"),
}


@pytest.fixture
def told(gpu, monkeypatch):
    """``told(error, work)`` is what the backend raises where CuPy raises ``error`` in that work."""

    def run(error, work="an allocation"):
        do, name = WORK[work]
        monkeypatch.setattr(FakeDevice, "current", 0)  # left as it was, however the device fails
        x = gpu.asarray(np.ones((2, 2), "float32"))
        *path, last = name.split(".")
        place = gpu.xp
        for part in path:
            place = getattr(place, part)
        with monkeypatch.context() as patch:
            patch.setattr(place, last, fails_with(error), raising=False)
            try:
                do(gpu, x)
            except Exception as raised:
                return raised
        pytest.fail("nothing was raised")

    return run


@pytest.mark.parametrize("work", WORK)
class TestWhereverItHappens:
    def test_out_of_memory(self, told, work):
        error = told(FULL, work)
        assert type(error) is OutOfMemory
        assert (error.requested, error.free, error.__cause__) == (1_288_490_189, 60, FULL)
        assert str(error) == full("1.2 GB were requested and 60 B are free")

    def test_a_lost_device(self, told, work):
        error = told(ILLEGAL, work)
        assert (type(error), error.__cause__) == (DeviceLost, ILLEGAL)
        assert str(error) == lost("cudaErrorIllegalAddress: an illegal memory access was encountered")


class TestOutOfMemory:
    @pytest.mark.parametrize(
        "error",
        [
            CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"),
            CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
            CUBLASError("CUBLAS_STATUS_ALLOC_FAILED"),
        ],
    )
    def test_what_was_asked_for_is_left_out_where_nobody_says(self, told, error):
        error = told(error)
        assert (error.requested, error.free, str(error)) == (None, 60, full("60 B are free"))

    @pytest.mark.parametrize(("held", "free"), [(70, 30), (10, 60)])
    def test_a_limit_that_cupy_was_given_counts(self, told, held, free):
        assert told(OutOfMemoryError(50, held, limit=100)).free == free

    def test_a_device_that_does_not_answer_has_no_figure(self, told, monkeypatch):
        monkeypatch.setattr(FakeDevice, "mem_info", property(fails_with(ILLEGAL)))
        assert str(told(FULL)) == full("1.2 GB were requested")
        assert str(told(CUBLASError("CUBLAS_STATUS_ALLOC_FAILED"))) == (f"cuda:1 is out of memory: {MEND}")

    @pytest.mark.parametrize(
        "error", [MemoryError(), MemoryError("Out of memory allocating 8 bytes"), MemoryError("Unable to")]
    )
    def test_memory_of_the_host_is_none_of_the_devices(self, told, error):
        assert told(error) is error

    def test_it_goes_to_another_process_whole(self, told):
        error = told(FULL)
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.requested, again.free) == (str(error), error.requested, error.free)


class TestDeviceLost:
    @pytest.mark.parametrize(
        "error",
        [
            CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure"),
            CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error encountered"),
            CUDARuntimeError(
                "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable"
            ),
            CUDARuntimeError("cudaErrorHardwareStackError: hardware stack error"),
            CUDARuntimeError("cudaErrorUnknown: unknown error"),
            CUDARuntimeError("cudaErrorContained: Invalidated by an exception on the device"),
            CUDADriverError("CUDA_ERROR_MPS_CLIENT_TERMINATED: the MPS client has been terminated"),
            CUDARuntimeError("cudaErrorNotPermitted: operation not permitted"),
            CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"),
            CUDADriverError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"),
            CUDADriverError("CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered"),
            CUBLASError("CUBLAS_STATUS_EXECUTION_FAILED"),
        ],
        ids=lambda error: str(error).partition(":")[0],
    )
    def test_it_is_told_as_cuda_names_it(self, told, error):
        raised = told(error, "a product")
        assert (type(raised), str(raised)) == (DeviceLost, lost(str(error)))

    @pytest.mark.parametrize(
        "error",
        [CUDARuntimeError("cudaErrorInvalidValue: invalid argument"), ValueError("shapes"), TypeError()],
    )
    def test_other_errors_are_left_as_they_are(self, told, error):
        assert told(error) is error

    @pytest.mark.parametrize("first", [FULL, ILLEGAL, ValueError("shapes")])
    def test_what_came_first_is_told_where_the_device_cannot_be_left_either(self, gpu, monkeypatch, first):
        later = CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")
        monkeypatch.setattr(FakeDevice, "current", 0)
        monkeypatch.setattr(FakeDevice, "__exit__", fails_with(later))
        with pytest.raises((OutOfMemory, DeviceLost, ValueError)) as caught, gpu.active():
            raise first
        assert first in (caught.value, caught.value.__cause__)


class TestActive:
    def test_an_error_is_told_once_and_the_device_before_is_current_again(self, gpu):
        with pytest.raises(DeviceLost) as caught, gpu.active(), gpu.active():
            raise ILLEGAL
        assert caught.value.__cause__ is ILLEGAL
        assert FakeDevice.current == 0

    def test_threads_are_told_their_own(self, gpu):
        errors = {}

        def work(error):
            try:
                with gpu.active():
                    raise error
            except Exception as raised:
                errors[error] = type(raised)

        threads = [threading.Thread(target=work, args=(error,)) for error in (FULL, ILLEGAL)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == {FULL: OutOfMemory, ILLEGAL: DeviceLost}


class TestAtTheStart:
    def refused(self, machine, error):
        machine(["cupy-cuda12x"], 12040, fake_cupy(gemm=raiser(error)))
        with pytest.raises(DeviceUnavailable) as caught:
            CudaBackend()
        return str(caught.value)

    def test_a_device_that_is_full_already(self, machine):
        assert self.refused(machine, CUBLASError("CUBLAS_STATUS_ALLOC_FAILED")) == (
            "cuda:0 has too little memory for a small computation (60 B are free): run nvidia-smi to see "
            "which processes use it"
        )
        assert (
            backends.get("auto").reason
            == "no CUDA: cuda:0 has too little memory for a small computation (60 B are free)"
        )

    def test_a_device_that_others_have_to_themselves(self, machine):
        error = CUDARuntimeError(
            "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable"
        )
        assert self.refused(machine, error) == (
            f"cuda:0 failed a small computation (CUDARuntimeError: {error}): check the GPU with nvidia-smi"
        )

    def test_a_driver_older_than_the_toolkit(self, machine):
        error = CUDADriverError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION: compiled with an unsupported toolchain")
        assert self.refused(machine, error) == (
            "the NVIDIA driver is too old for the CUDA toolkit that compiles for cuda:0: "
            "update the driver, and check with nvidia-smi"
        )

    @pytest.mark.parametrize(("capability", "said"), [("61", "6.1"), ("70", "7.0")])
    def test_a_gpu_older_than_the_compiled_kernels(self, capability, said):
        with pytest.raises(DeviceUnavailable) as caught:
            require_capability("cuda:0", capability)
        assert str(caught.value) == (
            f"cuda:0 has compute capability {said}, but the compiled kernels need 7.5 or later: "
            'use kernels="portable"'
        )

    def test_there_auto_takes_the_portable_kernels_and_says_why(self, machine, monkeypatch):
        monkeypatch.setattr(FakeDevice, "compute_capability", "61")
        machine(["cupy-cuda12x"], 13000, fake_cupy(1))
        gpu = CudaBackend(0)
        assert gpu.kernels.name == "portable"
        assert gpu.describe()["slower_than_it_could"].startswith("cuda:0 has compute capability 6.1")
        with pytest.raises(DeviceUnavailable, match='use kernels="portable"'):
            CudaBackend(0, kernels="compiled")

    @pytest.mark.parametrize("capability", ["75", "90", "100", "120"])
    def test_a_gpu_that_they_run_on(self, capability):
        require_capability("cuda:0", capability)
