"""Processes that are forked from one that has computed: they compute too, or say why they cannot."""

import os
import pickle
import select
import signal
import threading
import time

import numpy as np
import pytest
from helpers.fake_cupy import fake_cupy

import backends
import cnn
from backends import ArgumentError, DeviceUnavailable
from backends.cpu import threads
from backends.cuda import backend, capture

if not hasattr(os, "fork"):
    pytest.skip("there is no fork here", allow_module_level=True)

PATIENCE = 60  # seconds after which a child is taken to hang

IMAGES = np.random.default_rng(0).integers(0, 256, (256, 1, 28, 28), dtype=np.uint8)
LABELS = np.arange(256) % 10


def in_a_child(work):
    """What ``work()`` gives in a process that is forked from this one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = error
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    try:
        assert select.select([reader], [], [], PATIENCE)[0], "the child hangs"
        answer = os.read(reader, 1 << 16)
        assert answer, "the child was killed"
        return pickle.loads(answer)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def refusal(work):
    """The sentence in which ``work()`` refuses."""
    try:
        return work()
    except (ArgumentError, DeviceUnavailable) as error:
        return str(error)


@pytest.fixture(params=["compiled", "portable"])
def network(request):
    """A network that has computed and recorded its steps, on more than one thread where it can."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    net = cnn.Sequential(cnn.Conv2D(8, 5), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(10))
    net.build((1, 28, 28), backend=backends.get("cpu", kernels=request.param))
    for _ in range(3):
        net.predict(IMAGES)
    return net


def loss_after_training(net):
    return cnn.fit(net, cnn.data.Dataset(IMAGES, LABELS), epochs=1, batch_size=128, callbacks=[])[0]["loss"]


def test_a_child_computes_what_its_parent_does(network):
    np.testing.assert_allclose(
        in_a_child(lambda: network.predict(IMAGES[:128])), network.predict(IMAGES[:128]), rtol=1e-5
    )


def test_a_child_trains(network):
    found = in_a_child(lambda: loss_after_training(network))
    assert found == pytest.approx(loss_after_training(network), rel=1e-4)


def test_a_grandchild_computes(network):
    found = in_a_child(lambda: in_a_child(lambda: network.predict(IMAGES[:64])))
    np.testing.assert_allclose(found, network.predict(IMAGES[:64]), rtol=1e-5)


@pytest.mark.skipif(threads.available_cores() < 2, reason="there is one core")
@pytest.mark.parametrize("network", ["compiled"], indirect=True)
def test_a_child_starts_threads_of_its_own(network):
    pytest.importorskip("threadpoolctl")

    def compute():
        backends.get("cpu", threads=2)
        before = len(kernel_threads())
        repeated = network.predict(IMAGES)
        return before, len(kernel_threads()), repeated

    before, after, found = in_a_child(compute)
    assert (before, after) == (0, 1)
    np.testing.assert_allclose(found, network.predict(IMAGES), rtol=1e-5)


def kernel_threads():
    """The threads that compute parts of kernels for those that call them."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("kernels")]


def test_a_child_computes_though_another_thread_was_computing(network):
    """The pool is busy when the process is forked, and its job is never finished in the child."""
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            other.predict(IMAGES)

    other, expected = network.copy(), network.predict(IMAGES)
    another = threading.Thread(target=compute)
    another.start()
    try:
        for _ in range(5):
            np.testing.assert_allclose(in_a_child(lambda: network.predict(IMAGES)), expected, rtol=1e-5)
    finally:
        stop.set()
        another.join()


def test_a_child_can_compile_though_another_thread_was_compiling():
    numba = pytest.importorskip("numba")
    lock = numba.core.compiler_lock.global_compiler_lock
    compiling = threading.Event()

    def compile_something():
        with lock:
            compiling.set()
            time.sleep(0.05)

    another = threading.Thread(target=compile_something)
    another.start()
    compiling.wait()
    assert in_a_child(lambda: lock._lock.acquire(timeout=10))
    another.join()


class TestCuda:
    """Contexts of CUDA do not survive a fork."""

    @pytest.fixture(autouse=True)
    def started(self, machine, monkeypatch):
        monkeypatch.setattr(backend, "_process", None)
        machine(["cupy-cuda12x"], 13000, fake_cupy(2))

    def test_a_network_says_so_in_the_child(self):
        net = cnn.Sequential(cnn.Flatten(), cnn.Dense(10))
        net.build((1, 28, 28), backend=backends.get("cuda", kernels="portable"))
        said = in_a_child(lambda: refusal(lambda: net.predict(IMAGES[:2])))
        assert said == (
            "cuda:0 was in use when this process was forked, and CUDA does not work after a fork: start it "
            'with multiprocessing.get_context("spawn"), or use CUDA only after the fork'
        )

    def test_a_device_says_so_in_the_child(self):
        backends.get("cuda:1", kernels="portable")
        for name in ("cuda:0", "cuda:1"):
            said = in_a_child(lambda name=name: refusal(lambda: backends.get(name, kernels="portable")))
            assert "was in use when this process was forked" in said
        found = in_a_child(lambda: (backends.get("auto").name, backends.get("auto").reason))
        assert found == (
            "cpu",
            "no CUDA: CUDA was in use when this process was forked, and CUDA does not work after a fork",
        )

    def test_it_says_so_though_another_thread_was_recording(self):
        device = backends.get("cuda:1", kernels="portable")
        recording, done = threading.Event(), threading.Event()

        def record():
            with capture.recording_alone:
                recording.set()
                done.wait()

        another = threading.Thread(target=record)
        another.start()
        recording.wait()
        try:
            said = in_a_child(lambda: refusal(device.synchronize))
        finally:
            done.set()
            another.join()
        assert "was in use when this process was forked" in said

    def test_a_child_may_be_the_first_to_use_it(self):
        assert in_a_child(lambda: backends.get("cuda:1", kernels="portable").name) == "cuda:1"

    def test_started_by_something_else_is_named_as_a_likely_reason(self, machine):
        cupy = fake_cupy(1)

        def fails():
            raise RuntimeError("cudaErrorInitializationError: initialization error")

        cupy.cuda.runtime.getDeviceCount = fails
        machine(["cupy-cuda12x"], 13000, cupy)
        with pytest.raises(DeviceUnavailable, match="forked after CUDA was used: start"):
            backends.get("cuda")
