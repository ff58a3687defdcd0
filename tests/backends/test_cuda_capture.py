"""Recording a step on CUDA: which calls CuPy and cuBLAS get, on fakes of both."""

import ctypes
import gc
import threading
import warnings
import weakref

import numpy as np
import pytest
from helpers import host_cuda
from helpers.fake_cupy import (
    DEFAULT_STREAM,
    CUDARuntimeError,
    FakeDevice,
    FakeGraph,
    FakePool,
    FakeStream,
    OutOfMemoryError,
    raiser,
)

import backends
import cnn
from backends import DeviceLost
from backends.cuda import capture
from backends.cuda.backend import CudaBackend
from backends.memory import Buffer

pytestmark = host_cuda.needed

CUBLAS = host_cuda.HEADER.with_name("cublas.cpp")


@pytest.fixture
def cublas(monkeypatch):
    """The library that stands for cuBLAS, found where the real one would be."""
    library = host_cuda.library(CUBLAS.read_text())
    monkeypatch.setattr(capture, "_load", lambda: library)
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


def moved(gpu):
    """Let a buffer grow."""
    buffer = Buffer(gpu, np.float32)
    for size in (3, 6):
        buffer.view((size,))


def test_when_a_buffer_moves_the_step_is_recorded_again(gpu, cublas, streams):
    repeat = gpu.graph(Calls())
    repeat()
    repeat()
    assert len(streams) == 1
    moved(gpu)
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
        with pytest.warns(
            RuntimeWarning, match=f"the step runs without a CUDA graph, which is slower: .*{reason}"
        ) as said:
            repeat()
        repeat()
        notes = [each for each in said if issubclass(each.category, RuntimeWarning)]
        assert (len(notes), counter.tolist()) == (1, [2])
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

        monkeypatch.setattr(capture, "_load", missing)
        self.check(gpu, lambda: None, "OSError: libcublas.so.13")

    def test_a_cublas_that_fails(self, gpu, cublas, streams):
        x = gpu.zeros(4, "float32").reshape(2, 2)

        def step():
            recording = FakeStream.current and "begin" in FakeStream.current.log
            number(cublas, "answer").value = 13 if recording else 0
            gpu.matmul(x, x, out=gpu.zeros(4, "float32").reshape(2, 2))

        self.check(gpu, step, "CUBLAS_STATUS_EXECUTION_FAILED from cublasGemmEx")


class TestMemory:
    """What a recording takes of the GPU is given back, however it ends."""

    @pytest.fixture
    def taken(self, gpu):
        """How many bytes the pools of recordings hold on the GPU."""
        return lambda: FakePool.taken[gpu.index]

    @pytest.fixture
    def failing(self, gpu):
        """``failing(error, call)`` is a step that fails at a call, with temporary arrays in its frames."""

        def make(error, call):
            calls = []

            def inner():
                x = gpu.zeros(100_000, "float32")
                return {}[x.size]

            def step():
                x = gpu.zeros(100_000, "float32")
                calls.append(x.size)
                if len(calls) == call:
                    try:
                        inner()
                    finally:
                        raise error

            return step

        return make

    @pytest.mark.parametrize("call", [2, 3, 4])
    def test_of_a_step_that_cannot_be_recorded(self, gpu, cublas, streams, failing, taken, call):
        for _ in range(3):
            repeat = gpu.graph(failing(ValueError("no"), call))
            with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
                repeat()
            assert taken() == 0
        assert number(cublas, "created").value == number(cublas, "destroyed").value

    def test_of_a_step_that_fails_in_several_places(self, gpu, cublas, streams, failing, taken):
        def step():
            errors = []
            for one in (failing(ValueError("a"), 1), failing(ValueError("b"), 1)):
                try:
                    if FakeStream.current:
                        one()
                except ValueError as error:
                    errors.append(error)
            if errors:
                raise ExceptionGroup("both", errors)

        with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
            gpu.graph(step)()
        assert taken() == 0

    def test_of_a_step_that_is_interrupted(self, gpu, cublas, streams, failing, taken):
        with pytest.raises(KeyboardInterrupt) as caught:
            gpu.graph(failing(KeyboardInterrupt(), 3))()
        assert taken() == 0
        assert caught.value.__traceback__

    @pytest.mark.parametrize("broken", ["begin_capture", "end_capture", "synchronize", "_load"])
    def test_of_a_recording_that_breaks(self, gpu, cublas, streams, taken, monkeypatch, broken):
        monkeypatch.setattr(capture if broken == "_load" else FakeStream, broken, refused)
        repeat = gpu.graph(lambda: gpu.zeros(100, "float32"))
        with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
            repeat()
        assert taken() == 0

    def test_of_a_graph_that_is_dropped_or_recorded_again(self, gpu, cublas, streams, taken):
        assert FakeDevice.current != gpu.index
        repeat = gpu.graph(lambda: gpu.zeros(100_000, "float32"))
        repeat()
        first = taken()
        assert first > 32 << 20
        for _ in range(3):
            moved(gpu)
            repeat()
            assert taken() == first
        del repeat
        assert taken() == 0

    def test_of_graphs_that_go_while_another_is_given_back(self, gpu, cublas, streams, taken, monkeypatch):
        def graph():
            repeat = gpu.graph(lambda: None)
            repeat()
            return repeat

        waits, last = [graph(), graph()], [graph()]
        with capture._recording(FakeStream()):
            waits.clear()
        wait = gpu.xp.cuda.runtime.deviceSynchronize
        monkeypatch.setattr(gpu.xp.cuda.runtime, "deviceSynchronize", lambda: (last.clear(), wait()))
        gpu.memory()
        assert taken() == 0

    def test_what_a_step_keeps_is_given_back_after_that(self, gpu, cublas, streams, taken):
        kept = []

        def step():
            if FakeStream.current:
                kept[:] = [gpu.zeros(100_000, "float32")]
                refused()

        with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
            gpu.graph(step)()
        assert taken() == gpu.memory()["used"] - 30 == 400_000
        kept.clear()
        assert gpu.memory()["used"] == 30
        assert taken() == 0

    def test_what_a_recorded_step_holds_is_used(self, gpu, cublas, streams, taken):
        repeats = [gpu.graph(lambda: gpu.zeros(100_000, "float32")) for _ in range(2)]
        assert gpu.memory()["used"] == 30
        for repeat in repeats:
            repeat()
        assert gpu.memory()["used"] == 30 + taken() > 2 * (32 << 20)
        assert CudaBackend(0).memory()["used"] == 30  # the other GPU
        repeats.clear()
        del repeat
        assert gpu.memory()["used"] == 30


LOST = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")


@pytest.mark.filterwarnings("error")
class TestLostDevice:
    """A device that is lost while a step is recorded is lost, and nothing goes on."""

    def check(self, gpu, step=lambda: None):
        counter = gpu.zeros(1, "float32")
        repeat = gpu.graph(step, [counter])
        with pytest.raises(DeviceLost, match="cuda:1 is lost"):
            repeat()
        assert repeat.failure is None

    @pytest.mark.parametrize("call", [1, 2, 3, 4])
    @pytest.mark.parametrize("error", [LOST, DeviceLost("cuda:1 is lost")], ids=["CuPy's", "ours"])
    def test_in_the_step(self, gpu, cublas, streams, call, error):
        calls = []

        def step():
            calls.append(None)
            if len(calls) == call:
                raise error

        self.check(gpu, step)

    def test_when_the_warm_up_is_waited_for(self, gpu, cublas, streams, monkeypatch):
        def synchronize(self):
            raise LOST

        monkeypatch.setattr(FakeStream, "synchronize", synchronize)
        self.check(gpu)

    def test_when_what_was_queued_before_is_waited_for(self, gpu, cublas, streams, monkeypatch):
        monkeypatch.setattr(gpu.xp.cuda.runtime, "deviceSynchronize", raiser(LOST))
        self.check(gpu)

    def test_behind_another_error(self, gpu, cublas, streams, monkeypatch):
        def step():
            if streams:
                monkeypatch.setattr(gpu.xp.cuda.runtime, "deviceSynchronize", raiser(LOST))
                raise ValueError("nan")

        self.check(gpu, step)

    def test_nothing_is_given_back_to_it(self, gpu, cublas, streams, monkeypatch):
        repeats = [gpu.graph(lambda: None) for _ in range(2)]
        repeats[0]()
        monkeypatch.setattr(gpu.xp.cuda.runtime, "deviceSynchronize", raiser(LOST))
        before = number(cublas, "destroyed").value
        repeats.pop(0)
        with pytest.raises(DeviceLost):
            repeats.pop(0)()
        assert number(cublas, "destroyed").value == before

    def test_nothing_is_put_back_on_it(self, gpu, cublas, streams):
        counter = gpu.zeros(1, "float32")

        def step():
            np.add(counter, 1, out=counter)
            if streams:
                raise LOST

        with pytest.raises(DeviceLost):
            gpu.graph(step, [counter])()
        assert counter.tolist() == [2]


def test_memory_that_runs_out_while_recording_only_costs_the_graph(gpu, cublas, streams):
    def step():
        if FakeStream.current:
            raise OutOfMemoryError(1 << 30, 0)

    with pytest.warns(RuntimeWarning, match=r"runs without .*1\.0 GB were requested and 60 B are free"):
        gpu.graph(step)()


class TestThreads:
    """CUDA ends a recording if another thread waits for the device meanwhile."""

    @pytest.fixture(autouse=True)
    def _device_that_must_not_be_waited_for(self, gpu, monkeypatch):
        def wait(*_):
            if self.recording:
                self.spoilt = True

        def begin(stream):
            self.recording = True

        def end(stream):
            self.recording = False
            if self.spoilt:
                raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed")
            return FakeGraph(stream.log)

        self.recording = self.spoilt = False
        monkeypatch.setattr(FakeStream, "begin_capture", begin)
        monkeypatch.setattr(FakeStream, "end_capture", end)
        monkeypatch.setattr(gpu.xp.cuda.runtime, "deviceSynchronize", wait)
        monkeypatch.setattr(FakeDevice, "synchronize", wait)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("other", ["records", "waits", "asks for the memory"])
    def test_one_records_at_a_time(self, gpu, cublas, other):
        does = {
            "records": gpu.graph(lambda: None),
            "waits": gpu.synchronize,
            "asks for the memory": gpu.memory,
        }[other]
        failures = []

        def work():
            try:
                does()
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=work)

        def step():
            if self.recording:
                thread.start()
                thread.join(0.05)

        gpu.graph(step)()
        thread.join(10)
        assert (thread.is_alive(), failures, self.spoilt) == (False, [], False)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("where", ["in the step", "on another thread"])
    def test_a_graph_that_goes_meanwhile_is_given_back_later(self, gpu, cublas, monkeypatch, where):
        destroyed = []
        monkeypatch.setattr(
            capture.Cublas, "__del__", lambda cublas: destroyed.append(self.recording), raising=False
        )
        old = [gpu.graph(lambda: None)]
        old[0]()

        def step():
            if self.recording and where == "in the step":
                old.clear()
            elif self.recording:
                thread = threading.Thread(target=old.clear)
                thread.start()
                thread.join(10)

        new = gpu.graph(step)
        new()
        assert not old
        gpu.memory()
        assert destroyed == [False]


def small(backend):
    network = cnn.Sequential(
        cnn.Conv2D(4, 3), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(6), cnn.ReLU(), cnn.Dense(4)
    )
    network.build((1, 8, 8), backend=backend)
    return network


@pytest.mark.parametrize("kernels", ["compiled", "portable"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_training_through_the_cuda_backend_is_that_of_the_cpu(machine, kernels, stream):
    from helpers.fake_cupy import fake_cupy

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
    place = {"compiled": "backends.cuda.kernels", "portable": "backends.kernels.portable"}
    assert type(gpu.kernels).__module__ == place[kernels]
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


@pytest.mark.parametrize(("nbytes", "fits"), [(15, True), (16, False)])
def test_a_limit_of_cupys_pool_counts(gpu, monkeypatch, nbytes, fits):
    monkeypatch.setattr(gpu.xp.get_default_memory_pool(), "get_limit", lambda: 50)
    assert gpu.has_room(nbytes) is fits  # 20 bytes are in use
