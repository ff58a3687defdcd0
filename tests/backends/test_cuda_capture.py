"""Recording a step on CUDA: which calls CuPy and cuBLAS get, on fakes of both."""

import ctypes
import gc
import warnings
import weakref

import host_cuda
import numpy as np
import pytest
from fake_cupy import DEFAULT_STREAM, FakePool, FakeStream

import backends
import cnn
from backends import cuda_capture
from backends.backend import Buffer

pytestmark = host_cuda.needed

CUBLAS = host_cuda.HEADER.with_name("cublas.cpp")


@pytest.fixture
def cublas(monkeypatch):
    """The library that stands for cuBLAS, found where the real one would be."""
    library = host_cuda.library(CUBLAS.read_text())
    monkeypatch.setattr(cuda_capture, "_load", lambda: library)
    yield library
    number(library, "answer").value = 0


@pytest.fixture
def streams(gpu, monkeypatch):
    """The streams that are made, in order."""
    made = []
    monkeypatch.setattr(
        gpu.xp.cuda, "Stream", lambda **options: made.append(FakeStream(**options)) or made[-1]
    )
    return made


def number(library, name, kind=ctypes.c_int):
    return kind.in_dll(library, name)


class Calls:
    """A step that notes where it runs."""

    def __init__(self):
        self.log = []

    def __call__(self):
        on = "default" if FakeStream.current is None else "own"
        self.log.append((on, FakePool.current is not None))
        if FakeStream.current:
            FakeStream.current.log.append("step")


def test_a_step_warms_up_is_recorded_and_then_only_launched(gpu, cublas, streams):
    step = Calls()
    repeat = gpu.graph(step)
    repeat()
    (stream,) = streams
    assert stream.non_blocking
    assert stream.log == [
        "step",
        "step",
        "synchronize",
        "begin",
        "step",
        "end",
        "upload",
        "synchronize",
        "launch",
    ]
    assert step.log == [("default", False), ("own", True), ("own", True), ("own", True)]
    repeat()
    repeat()
    assert stream.log[-3:] == ["launch"] * 3
    assert len(step.log) == 4
    assert (FakeStream.current, FakePool.current) == (None, None)


def test_what_the_warm_up_changed_is_put_back(gpu, cublas, streams):
    counter = gpu.zeros(1, "float32")
    repeat = gpu.graph(lambda: np.add(counter, 1, out=counter), [counter])
    repeat()
    assert counter.tolist() == [0]  # and the fake graph does nothing


def test_when_a_buffer_moves_the_step_is_recorded_again(gpu, cublas, streams):
    repeat = gpu.graph(Calls())
    repeat()
    repeat()
    assert len(streams) == 1
    Buffer(gpu, np.float32).view((3,))
    repeat()
    assert len(streams) == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_a_recording_go_through_a_cublas_of_its_own(gpu, cublas, streams, dtype):
    random = np.random.default_rng(0)
    a, b = (gpu.asarray(random.standard_normal((3, 4)), dtype=dtype) for _ in range(2))
    outs = [gpu.zeros(size, dtype).reshape(shape) for size, shape in ((9, (3, 3)), (16, (4, 4)))]
    used = []

    def step():
        gpu.matmul(a, b.T, out=outs[0])
        gpu.matmul(a.T, b, out=outs[1], accumulate=True)
        used.append(gpu._gemm_ex.__qualname__ if hasattr(gpu._gemm_ex, "__qualname__") else "CuPy's")

    gpu.graph(step)()
    assert used == ["CuPy's", *["Cublas.gemm_ex"] * 3]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(outs[0], a @ b.T, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(outs[1], 4 * (a.T @ b), rtol=tolerance, atol=tolerance)
    assert number(cublas, "stream_set", ctypes.c_void_p).value == streams[0].ptr
    assert number(cublas, "workspace_set", ctypes.c_void_p).value  # set after the stream, which resets it
    assert number(cublas, "workspace_bytes", ctypes.c_size_t).value == 32 << 20
    gpu.matmul(a, b.T, out=outs[0])
    assert not hasattr(gpu._gemm_ex, "__qualname__")


def test_a_handle_is_given_back_with_its_graph(gpu, cublas, streams):
    before = number(cublas, "created").value - number(cublas, "destroyed").value
    repeat = gpu.graph(Calls())
    repeat()
    assert number(cublas, "created").value - number(cublas, "destroyed").value == before + 1
    del repeat
    assert number(cublas, "created").value - number(cublas, "destroyed").value == before


def test_a_pool_is_emptied_when_all_that_it_gave_is_back(gpu, cublas, streams, monkeypatch):
    # CuPy 14 never gives back what is free in a pool that goes before it is emptied
    left = []

    def free_all_blocks(self):
        left.append((self.memory(), number(cublas, "created").value - number(cublas, "destroyed").value))

    class Memory:
        def __init__(self):
            self.ptr = 256

    def malloc(self, nbytes):
        memory = Memory()
        self.memory = weakref.ref(memory)
        return memory

    monkeypatch.setattr(FakePool, "malloc", malloc)
    monkeypatch.setattr(FakePool, "free_all_blocks", free_all_blocks)
    before = number(cublas, "created").value - number(cublas, "destroyed").value
    repeat = gpu.graph(Calls())
    repeat()
    assert left == []
    del repeat
    assert left == [(None, before)]


def refused(*arguments):
    raise RuntimeError(
        "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing\nmore"
    )


class TestFailure:
    """Where nothing can be recorded, the step goes on as it is, and that is said once, with the reason."""

    def check(self, gpu, step, reason):
        counter = gpu.zeros(1, "float32")

        def counted():
            np.add(counter, 1, out=counter)
            step()

        repeat = gpu.graph(counted, [counter])
        with pytest.warns(RuntimeWarning, match=f"training goes on without a CUDA graph: .*{reason}") as said:
            repeat()
        repeat()
        assert (len(said), counter.tolist()) == (1, [2])
        assert (FakeStream.current, FakePool.current) == (None, None)

    def test_a_call_that_is_not_permitted(self, gpu, cublas, streams):
        def step():
            if FakeStream.current and "begin" in FakeStream.current.log:
                refused()

        self.check(gpu, step, r"cudaErrorStreamCaptureUnsupported: .* is capturing\)$")
        assert streams[0].log[-1] == "end"  # or the stream would stay in that state

    def test_a_recording_that_breaks_at_its_end(self, gpu, cublas, streams, monkeypatch):
        monkeypatch.setattr(FakeStream, "end_capture", refused)
        self.check(gpu, lambda: None, "cudaErrorStreamCaptureUnsupported")

    def test_a_cupy_without_graphs(self, gpu, cublas, streams, monkeypatch):
        monkeypatch.setattr(FakeStream, "begin_capture", refused)
        self.check(gpu, lambda: None, "cudaErrorStreamCaptureUnsupported")
        assert gc.isenabled()

    def test_a_cublas_that_is_not_found(self, gpu, streams, monkeypatch):
        def missing():
            raise OSError("libcublas.so.13: cannot open shared object file")

        monkeypatch.setattr(cuda_capture, "_load", missing)
        self.check(gpu, lambda: None, "OSError: libcublas.so.13")

    def test_a_cublas_that_fails(self, gpu, cublas, streams):
        x = gpu.zeros(4, "float32").reshape(2, 2)

        def step():
            recording = FakeStream.current and "begin" in FakeStream.current.log
            number(cublas, "answer").value = 13 if recording else 0
            gpu.matmul(x, x, out=gpu.zeros(4, "float32").reshape(2, 2))

        self.check(gpu, step, "CUBLAS_STATUS_EXECUTION_FAILED from cublasGemmEx")


def small(backend):
    network = cnn.Sequential(
        cnn.Conv2D(4, 3), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(6), cnn.ReLU(), cnn.Dense(4)
    )
    network.build((1, 8, 8), backend=backend)
    return network


@pytest.mark.parametrize("kernels", ["compiled", "portable"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_training_through_the_cuda_backend_is_that_of_the_cpu(machine, kernels, stream):
    from fake_cupy import fake_cupy

    machine(["cupy-cuda12x"], 13000, fake_cupy(1))
    gpu = backends.get("cuda", kernels)
    random = np.random.default_rng(0)
    data = cnn.data.Dataset(random.integers(0, 256, (70, 1, 8, 8), dtype=np.uint8), random.integers(0, 4, 70))
    weights = []
    for backend in (gpu, backends.get("cpu", "portable")):
        network = small(backend)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cnn.fit(network, data, data, epochs=2, batch_size=16, callbacks=[], graph=False, stream=stream)
        weights.append(network.state_dict())
    assert (
        type(gpu.kernels).__module__
        == f"backends.kernels.{'compiled_cuda' if kernels == 'compiled' else kernels}"
    )
    for name, value in weights[1].items():
        np.testing.assert_allclose(weights[0][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


class TestUpload:
    """Copies that go on while the GPU computes."""

    def test_each_waits_for_what_it_must(self, gpu, streams):
        DEFAULT_STREAM.log.clear()
        target = gpu.zeros(4, "float32")
        upload = gpu.upload(target)
        upload.release()
        upload.claim()
        upload.host[0][...] = [1, 2, 3, 4]
        upload.send()
        upload.arrive()
        assert streams[0].log == ["wait for work", "copy"]
        assert DEFAULT_STREAM.log == ["wait for copies"]
        assert (target.tolist(), gpu.crossings) == ([1, 2, 3, 4], 1)


@pytest.mark.parametrize(("nbytes", "fits"), [(35, True), (36, False)])
def test_a_data_set_may_take_half_of_what_is_free(gpu, nbytes, fits):
    assert gpu.has_room(nbytes) is fits  # 60 bytes on the device, 10 in CuPy's pool
