"""The memory that --dry-run names is what training then takes."""

import gc

import numpy as np
import pytest
from helpers.standin import StandInBackend, counters

import cnn
from backends.cuda.launch import Launcher
from cnn.data import Dataset
from cnn.inspection import memory
from cnn.training.named import OPTIMIZERS


@pytest.mark.parametrize("model", ["lenet5", "notebook"])
@pytest.mark.parametrize("batch_size", [32, 300])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_is_what_training_allocates(model, batch_size, optimizer):
    require_right_estimate(model, batch_size, optimizer, "float32")


@pytest.mark.parametrize("batch_size", [32, 300])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_too_with_the_copies_of_the_portable_kernels(batch_size, dtype):
    pytest.importorskip("ml_dtypes")
    require_right_estimate("lenet5", batch_size, "sgd", dtype)


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Kernels of the GPU are launched and do nothing."""
    monkeypatch.setattr(Launcher, "function", lambda self, name, dtype: lambda *arguments, **named: None)
    monkeypatch.setattr(StandInBackend, "matmul", lambda self, a, b, out, accumulate=False: out)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_it_is_what_training_with_cuda_kernels_allocates(dtype, recompute):
    pytest.importorskip("ml_dtypes")
    images = np.zeros((32, 3, 32, 32), dtype=np.uint8)
    data = Dataset(images, np.arange(32) % 10)
    device, optimizer = StandInBackend("compiled"), cnn.SGD(0.1, momentum=0.9)
    device.reset_counters()
    network = cnn.models.make("resnet20", classes=10)
    network.build((3, 32, 32), backend=device, dtype=dtype)
    said = memory.memory(network, optimizer, data, None, 32, recompute=recompute)
    cnn.fit(
        network, data, optimizer=optimizer, batch_size=32, callbacks=[cnn.NaNGuard()], recompute=recompute
    )
    assert 0.75 < said.total / device.allocated_bytes < 1.25


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_activations_and_workspace_in_16_bits_take_half(dtype):
    pytest.importorskip("ml_dtypes")
    data = Dataset(np.zeros((32, 3, 32, 32), dtype=np.uint8), np.arange(32) % 10)
    found = []
    for each in ("float32", dtype):
        network = cnn.models.make("resnet20", classes=10)
        network.build((3, 32, 32), backend=StandInBackend("compiled"), dtype=each)
        found.append(memory.memory(network, cnn.SGD(0.1), data, data, 32))
    wide, half = found
    assert half.activations == pytest.approx(wide.activations / 2, rel=0.01)  # the output is float32
    assert half.workspace == wide.workspace // 2
    assert (half.optimizer, half.data) == (wide.optimizer, wide.data)
    assert half.parameters == wide.parameters * 5 // 4  # and those that products read


def require_right_estimate(model, batch_size, optimizer, dtype):
    random = np.random.default_rng(0)
    train, test = (
        Dataset(random.integers(0, 255, (count, 28, 28), dtype=np.uint8), np.arange(count) % 10)
        for count in (400, 300)
    )
    gc.collect()  # the arrays of other tests
    before, taken = counters.live_bytes, []
    chosen = OPTIMIZERS[optimizer](0.01)
    network = cnn.models.get(model, 10)
    network.build((1, 28, 28), backend=StandInBackend(), dtype=dtype)
    said = memory.memory(network, chosen, train, test, batch_size).total

    class Watch(cnn.Callback):
        def on_epoch(self, run, record):
            taken.append(counters.live_bytes - before)

    callbacks = [cnn.NaNGuard(), Watch()]
    cnn.fit(network, train, validation=test, optimizer=chosen, batch_size=batch_size, callbacks=callbacks)
    assert 0.75 < said / max(taken) < 1.25


def test_floats_count_in_the_dtype_that_they_take_on():
    images, labels = np.zeros((400, 28, 28)), np.arange(400) % 10
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu")
    wide, narrow = (Dataset(images.astype(dtype), labels) for dtype in ("float64", "float32"))
    memories = [memory.memory(network, cnn.SGD(0.1), part, part, 32) for part in (wide, narrow)]
    assert memories[0].data == memories[1].data > 2 * 4 * images.size


def test_images_in_a_mapped_file_take_no_memory(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((400, 28, 28), dtype=np.uint8))
    labels, network = np.arange(400) % 10, cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu")
    mapped, copied = (Dataset(np.load(tmp_path / "x.npy", mmap_mode=mode), labels) for mode in ("r", None))
    sizes = [memory.memory(network, cnn.SGD(0.1), part, None, 32).data for part in (mapped, copied)]
    assert sizes[1] - sizes[0] == 400 * 28 * 28


def test_every_part_grows_with_what_it_is_of():
    train = Dataset(np.zeros((400, 28, 28), dtype=np.uint8), np.arange(400) % 10)
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu")
    small = memory.memory(network, cnn.SGD(0.1), train, train, 32)
    large = memory.memory(network, cnn.SGD(0.1, momentum=0.9), train, train, 320)
    assert small.data == large.data > train.images.nbytes
    assert small.parameters == large.parameters == 2 * network.flat.value.nbytes
    assert small.optimizer < large.optimizer
    assert small.activations < large.activations
    assert large.total > small.total


class TestFittingBatchSize:
    @pytest.fixture
    def training(self):
        """Network, optimizer, training and test set."""
        images = np.zeros((400, 28, 28), dtype=np.uint8)
        data = Dataset(images, np.arange(400) % 10)
        network = cnn.models.lenet5()
        network.build((1, 28, 28), backend="cpu")
        return network, cnn.SGD(0.1), data, None

    @pytest.mark.parametrize(
        ("tried", "fits"), [(300, 150), (300, 37), (128, 64), (5, 2), (2, 1), (1000, 100)]
    )
    def test_it_is_the_largest_half_whose_memory_there_is(self, training, tried, fits):
        room = memory.memory(*training, fits).at_most
        assert memory.fitting_batch_size(*training, tried, None, room) == fits
        assert memory.fitting_batch_size(*training, tried, None, room - 1) < fits

    def test_it_is_smaller_than_what_was_tried_however_much_room_there_seems_to_be(self, training):
        assert memory.fitting_batch_size(*training, 64, None, 1 << 40) == 32

    def test_none_fits_beside_the_images(self, training):
        room = memory.memory(*training, 1).at_most - 1
        assert memory.fitting_batch_size(*training, 64, None, room) == 0
        assert memory.fitting_batch_size(*training, 1, None, 1 << 40) == 0
