"""Kernels are compiled before they are called, in several processes, and a rehearsal changes nothing."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

pytest.importorskip("numba")

import backends
import cnn
from backends import DeviceUnavailable, graph
from backends.cpu import threads
from backends.cpu.compiled import ahead, jit, kernel_cache, steps
from backends.cpu.compiled.jit import KERNELS
from cnn.layers import Layer

SMALL = ["sum_rows", "tanh_grad", "softmax_grad"]
FLOAT32 = np.dtype(np.float32)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Three small kernels that are neither in memory nor on disk, on two cores."""
    monkeypatch.setattr(kernel_cache, "folder", kernel_cache.KernelFolder(str(tmp_path)))
    monkeypatch.setattr(threads, "count", lambda: 2)
    chosen = [getattr(steps, name) for name in SMALL]
    for kernel in chosen:
        monkeypatch.setattr(kernel, "_addresses", {})
    return [(kernel, FLOAT32) for kernel in chosen]


@pytest.fixture
def shown(monkeypatch):
    """The texts of the progress."""
    texts = []
    monkeypatch.setattr(ahead.progress, "show", texts.append)
    return texts


def cached_names():
    files = kernel_cache.folder.path.glob("*.nbc")
    return sorted(file.name.partition("-")[0].partition(".")[2] for file in files)


def test_all_that_are_missing_are_compiled_and_cached(tasks, shown):
    assert ahead.compile_missing([*tasks, *tasks]) == 3
    assert {name for name in SMALL if any(name in kernel for kernel in cached_names())} == set(SMALL)
    assert all(kernel.is_ready(dtype) for kernel, dtype in tasks)
    assert set(shown) <= {f"compiling kernels: {done} of 3" for done in range(3)} | {""}
    assert shown[-1] == ""
    assert ahead.compile_missing(tasks) == 0


def test_another_process_compiles_what_this_one_then_loads(tasks):
    helper = ahead._Helper()
    try:
        assert all(helper.compile(task) for task in tasks)
    finally:
        helper.end()
    before = jit.clock.seconds
    for kernel, dtype in tasks:
        assert not kernel._addresses
        assert kernel.is_ready(dtype)
        assert kernel.address(dtype)
    assert jit.clock.seconds == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way")
def test_ctrl_c_does_not_end_the_processes_that_help(tasks):
    helper = ahead._Helper()
    try:
        assert helper.compile(tasks[0])
        helper._process.send_signal(signal.SIGINT)
        assert helper.compile(tasks[1])
    finally:
        helper.end()


def test_what_a_process_that_ends_late_has_not_compiled_this_one_compiles(tasks, monkeypatch):
    started = threading.Event()

    def compile_late(self, task):
        started.set()
        end = time.monotonic() + 60
        while sum(bool(kernel._addresses) for kernel, _ in tasks) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.3)  # this process has nothing left to do
        return False

    monkeypatch.setattr(ahead._Helper, "compile", compile_late)
    monkeypatch.setattr(ahead, "compile_functions", started.wait)
    assert ahead.compile_missing(tasks) == 3
    assert all(kernel._addresses for kernel, _ in tasks)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped in another way")
def test_a_process_that_hangs_is_ended_and_this_one_compiles_its_kernel(tasks, monkeypatch):
    ended = []
    start, end = ahead._Helper.__init__, ahead._Helper.end

    def start_and_stop(self):
        start(self)
        self._process.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(ahead._Helper, "__init__", start_and_stop)
    monkeypatch.setattr(ahead._Helper, "end", lambda self: (ended.append(self.seconds), end(self)))
    monkeypatch.setattr(ahead, "LEAST_PATIENCE", 0.5)
    monkeypatch.setattr(ahead, "PATIENCE", 0)
    assert ahead.compile_missing(tasks) == 3
    assert all(kernel._addresses for kernel, _ in tasks)
    assert ended[0] > 0.5


def test_the_patience_with_a_process_grows_with_the_longest_time_for_a_kernel(tasks):
    queue = ahead._Queue(tasks)
    times = iter([0, 0.1, 0])
    queue.work(lambda task: time.sleep(next(times)) is None)
    assert queue.longest >= 0.1


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other permissions")
def test_what_a_process_could_not_write_is_compiled_by_this_one(tasks, monkeypatch):
    start = ahead._Helper.__init__

    def start_elsewhere(self):
        monkeypatch.setattr(kernel_cache.folder, "name", "/dev/null")  # where no file can be written
        start(self)

    monkeypatch.setattr(ahead._Helper, "__init__", start_elsewhere)
    helper = ahead._Helper()
    try:
        assert not helper.compile(tasks[0])
    finally:
        helper.end()
    assert ahead.compile_missing(tasks) == 3
    assert all(kernel.is_on_disk(dtype) for kernel, dtype in tasks)


COMPILE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a shell's background
from cnn.cli import main
sys.argv = ["cnn", "compile", "--threads", "2"]
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way")
def test_ctrl_c_ends_cnn_compile_soon_and_without_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", COMPILE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    kernels = tmp_path / "xpcnn" / "kernels"
    end = time.monotonic() + 300
    while len(list(kernels.glob("*.nbc"))) < 6 and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=300)  # one kernel may take long on a busy machine
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize("program", ["no such program", None, "false"])
def test_without_other_processes_this_one_compiles_everything(tasks, monkeypatch, program):
    monkeypatch.setattr(sys, "executable", program)
    assert ahead.compile_missing(tasks) == 3
    assert all(kernel._addresses for kernel, _ in tasks)


def test_seconds_are_counted_once(tasks):
    before = jit.clock.seconds
    with jit.clock:
        tasks[0][0].address(FLOAT32)
        assert jit.clock.seconds == before
    assert jit.clock.seconds > before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork")
def test_a_child_counts_its_own_seconds_only():
    """Also if its parent was compiling in another thread when it forked."""
    with jit.clock:
        child = os.fork()
        if child == 0:
            before = jit.clock.seconds
            with jit.clock:
                time.sleep(0.01)
            os._exit(0 if jit.clock.seconds > before else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_seconds_of_two_threads_are_counted_once_and_the_beginning_is_told_once():
    clock, told, both = jit.CompileClock(), [], threading.Barrier(2)
    clock.begun = lambda: (time.sleep(0.1), told.append(1))

    def compile_something():
        with clock:
            both.wait(60)
            time.sleep(0.1)
            both.wait(60)

    start = time.perf_counter()
    others = [threading.Thread(target=compile_something) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert told == [1]
    assert 0.1 <= clock.seconds <= time.perf_counter() - start


def test_everything_is_compiled_for_the_dtypes_that_are_asked_for(tasks, monkeypatch):
    monkeypatch.setattr(ahead, "KERNELS", {kernel.name: kernel for kernel, _ in tasks} | {"tests.own": None})
    found = ahead.compile_all(["float32", "float64"])
    folder = kernel_cache.folder.path
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert found == {"compiled": 6, "present": 0, "folder": str(folder), "bytes": found["bytes"]}
    assert 0 < found["bytes"] <= size
    assert ahead.compile_all(["float32"]) == found | {"compiled": 0, "present": 3}


def test_what_another_process_compiles_meanwhile_is_not_counted(tasks):
    kernel, dtype = tasks[0]

    def use():
        kernel.address(dtype)
        for name in "abc":
            (kernel_cache.folder.path / f"{name}.nbc").touch()

    found = ahead.compile_used_by([use])
    assert (found["compiled"], found["present"]) == (1, 0)


def test_what_cannot_be_cached_is_not_compiled_ahead(tasks, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(kernel_cache, "folder", kernel_cache.KernelFolder(str(tmp_path / "file")))
    with pytest.raises(DeviceUnavailable, match="not compiled, because they cannot be cached"):
        ahead.compile_all(["float32"])


class Own(Layer):
    """A layer in plain xp, which counts its calls."""

    calls = 0

    def forward(self, x, training=False):
        self.calls += 1
        return x * 2

    def backward(self, dy, input_grad=True):
        return dy * 2


def rehearsed(*more):
    """(the network, the names of the kernels that its step needs) after a rehearsal."""
    net = cnn.Sequential(cnn.Flatten(), *more, cnn.Dense(4), cnn.Dropout(0.5), cnn.Dense(3))
    net.build((1, 4, 4), backend=backends.get("cpu", kernels="compiled"))
    x, labels = np.ones((1, 4, 4, 8), np.float32), np.arange(8) % 3
    loss, optimizer = cnn.CrossEntropy(), cnn.SGD(0.1, momentum=0.9)
    optimizer.build(net)
    loss.build(net)

    def step():
        y = net.forward(x, training=True)
        loss.forward(y, labels)
        net.backward(loss.backward(), input_grad=False)
        optimizer.step(0.1)

    before = {name: array.copy() for name, array in net.state.items()}
    with pytest.MonkeyPatch.context() as patch:
        for kernel in KERNELS.values():
            patch.setattr(kernel, "_addresses", {})
        needed = graph.rehearse(step)
    for name, array in net.state.items():
        np.testing.assert_array_equal(array, before[name])
    return net, {kernel.function.__name__ for kernel, _ in needed}


def test_a_rehearsal_finds_what_a_step_needs_and_changes_nothing():
    _, names = rehearsed()
    assert {"dropout", "outer_product", "cross_entropy", "sgd"} <= names


def test_a_rehearsal_finds_the_parts_of_a_batch_normalization():
    _, names = rehearsed(cnn.BatchNorm1D())
    assert {"moments", "normalize", "normalize_grad", "sgd"} <= names


def test_a_rehearsal_ends_at_a_layer_of_a_users_own():
    own = Own()
    _, names = rehearsed(own)
    assert own.calls == 0
    assert "sgd" not in names


def test_a_rehearsal_ends_at_an_error():
    def step():
        graph.launch(error)
        raise ValueError("the step's own")

    def error():
        raise AssertionError("it is called")

    assert graph.rehearse(step) == []
    assert graph.current() is None


TRAIN = """
import hashlib, numpy as np, backends, cnn
device = backends.get("cpu", kernels="compiled", threads=backends.cpu.threads.available_cores())
device.kernels.when_compiling(print, lambda text: print("progress", text) if text else None)
net = cnn.Sequential(cnn.PReLU(3), cnn.GlobalAvgPool2D())  # their kernels are compiled quickly
net.build((3, 4, 4), backend=device)
images = np.random.default_rng(0).integers(0, 256, (256, 3, 4, 4), np.uint8)
data = cnn.data.Dataset(images, np.arange(256) % 3)
cnn.fit(net, data, epochs=2, batch_size=64, callbacks=[])
print(hashlib.sha256(net.flat.value.tobytes()).hexdigest())
"""


def test_a_training_run_with_an_empty_folder_compiles_ahead_and_has_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def train():
        done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    first, second = train(), train()
    assert first[0].startswith("compiling kernels for this processor")
    assert any(line.startswith("progress compiling kernels: ") for line in first)
    assert second == first[-1:]
