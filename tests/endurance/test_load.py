"""Under load: data larger than the memory, thousands of steps, many processes at once."""

import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.standin import StandInBackend

import backends
import cnn

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "CNN_DEVICE": "cpu", "OPENBLAS_NUM_THREADS": "1"}


def start(*arguments, cwd, **variables):
    """A Python that runs, with its output kept."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process):
    """What a process printed, once it has ended well."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def small_network(dtype):
    net = cnn.Sequential(cnn.Conv2D(2, 3), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dense(3))
    net.build((1, 12, 12), backend=backends.get("cpu"), dtype=dtype)
    return net


# --- data larger than the memory


def dataset(dtype, count=150):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 1, 12, 12), dtype=np.uint8)
    if dtype != "uint8":
        images = random.standard_normal(images.shape).astype(dtype)
    return images, random.integers(0, 3, count)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stored", ["uint8", "float32", "float64"])
def test_a_mapped_file_trains_to_the_same_bits_as_memory(stored, dtype, tmp_path):
    images, labels = dataset(stored)
    np.save(tmp_path / "x.npy", images)
    results = []
    for source in (images, np.load(tmp_path / "x.npy", mmap_mode="r")):
        net, data = small_network(dtype), cnn.data.Dataset(source, labels)
        history = cnn.fit(net, data, data, epochs=2, batch_size=32, callbacks=[])
        results.append((net.flat.value, net.predict(source), history[-1]["validation_loss"]))
    for memory, file in zip(*results, strict=True):
        np.testing.assert_array_equal(memory, file)


SHORT_OF_MEMORY = """
import resource, sys
import numpy as np
import backends, cnn

def own_bytes():  # what this process wrote or may write; pages of a file that is read only are not among it
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmData")]
    return int(line.split()[1]) * 1024

net = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
net.build((1, 64, 64), backend=backends.get("cpu"))

def work(images):
    data = cnn.data.Dataset(images, np.arange(len(images)) % 3)
    cnn.fit(net, data, data, batch_size=256, callbacks=[])
    cnn.evaluate(net, data)
    net.predict(data.images)

images = np.load(sys.argv[1], mmap_mode="r")
work(images[:256].copy())  # compiles, starts threads
resource.setrlimit(resource.RLIMIT_DATA, (own_bytes() + images.nbytes // 3,) * 2)
try:
    images.copy()
except MemoryError:
    work(images)
    print("done")
else:
    print("no limit")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("stored", ["uint8", "float32", "float64"])
def test_a_file_is_trained_on_with_less_memory_than_it_holds(stored, tmp_path):
    size = 144 << 20
    shape = (size // np.dtype(stored).itemsize // 4096, 1, 64, 64)
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", stored, shape)  # of holes, which read as 0
    said = output(start("-c", SHORT_OF_MEMORY, tmp_path / "x.npy", cwd=tmp_path))
    if said == "no limit\n":
        pytest.skip("this system does not limit memory")
    assert said == "done\n"


def test_a_folder_of_npy_files_trains_as_the_npz(command, own_data):
    Path("own").mkdir()
    with np.load(own_data) as arrays:
        for name, array in arrays.items():
            np.save(f"own/{name}.npy", array)
    for data, out in ((own_data, "npz"), ("own", "npy")):
        code, _, err = command(
            "train", "--data", data, "--epochs", 1, "--batch-size", 16, "--no-report", "--out", out
        )
        assert code == 0, err
    assert Path("npy/model.safetensors").read_bytes() == Path("npz/model.safetensors").read_bytes()


# --- thousands of steps


def test_steps_and_all_else_keep_no_memory(tmp_path):
    pytest.importorskip("numba")  # each kernel set is soaked
    script = Path(__file__).with_name("soak.py")
    said = output(start(script, "--steps", 400, "--times", 4, "--batch-size", 1, cwd=tmp_path))
    assert said.count("400 times") == 4


class Held(cnn.Callback):
    """What Python holds after each epoch."""

    def on_start(self, run):
        tracemalloc.start()
        self.after = []

    def on_epoch(self, run, record):
        gc.collect()
        self.after.append(tracemalloc.get_traced_memory()[0])

    def on_end(self, run):
        tracemalloc.stop()


def test_recorded_steps_keep_no_memory():
    images, labels = dataset("uint8", count=1600)
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    net.build((1, 12, 12), backend=StandInBackend("portable"))
    held = Held()
    cnn.fit(net, cnn.data.Dataset(images, labels), epochs=4, batch_size=4, callbacks=[held])
    assert held.after[-1] - held.after[1] < 800 * 20  # bytes a step


# --- many processes at once

COMPILE = """
import sys
import numpy as np
import backends
kernels = backends.get("cpu", "compiled").kernels
sums = np.zeros(3, sys.argv[1])
kernels.sum_rows(np.arange(12, dtype=sys.argv[1]).reshape(3, 4), sums)
print(sums.tolist(), kernels.compile_seconds > 0)
"""
SUMS = "[6.0, 22.0, 38.0]"


def compile_at_once(folder, *dtypes):
    """What processes printed that compile a kernel for a dtype at the same moment, into one folder."""
    processes = [start("-c", COMPILE, dtype, cwd=folder, NUMBA_CACHE_DIR=str(folder)) for dtype in dtypes]
    return [output(process).strip() for process in processes]


def test_processes_that_compile_into_one_empty_folder_leave_it_whole(tmp_path):
    pytest.importorskip("numba")
    said = compile_at_once(tmp_path, "float32", "float64", "float32", "float64")
    assert [line.rpartition(" ")[0] for line in said] == [SUMS] * 4
    assert compile_at_once(tmp_path, "float32", "float64") == [f"{SUMS} False"] * 2


def test_three_trainings_at_once_end_as_one_alone(own_data, tmp_path):
    arguments = ("-m", "cnn", "train", "--data", own_data, "--epochs", 1, "--batch-size", 16, "--no-report")
    output(start(*arguments, "--out", "alone", cwd=tmp_path))
    for process in [start(*arguments, "--out", number, cwd=tmp_path) for number in range(3)]:
        output(process)
    weights = [path.read_bytes() for path in tmp_path.glob("*/model.safetensors")]
    assert len(weights) == 4
    assert set(weights) == {(tmp_path / "alone" / "model.safetensors").read_bytes()}
