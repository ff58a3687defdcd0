"""A batch that is computed in parts gives the same updates as in one piece, with less memory."""

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.inspection.memory import memory
from cnn.training.step import compute_gradients

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8), RANDOM.integers(0, 4, 50))
DEVICES = {
    "compiled": lambda: backends.get("cpu", "compiled"),
    "portable": lambda: backends.get("cpu", "portable"),
    "graph": lambda: StandInBackend("compiled"),
    "no graph": lambda: StandInBackend("portable"),
}


def trained(device, **options):
    """The weights and the history of a network with dropout, after epochs with a short last batch."""
    net = cnn.Sequential(
        cnn.Conv2D(4, 3),
        cnn.ReLU(),
        cnn.MaxPool2D(2),
        cnn.Dropout(0.3),
        cnn.Flatten(),
        cnn.Dropout(),
        cnn.Dense(4),
    )
    net.build((1, 8, 8), backend=device, dtype="float64")
    options = {"optimizer": cnn.SGD(0.1, momentum=0.9), "transforms": [cnn.ClipNorm(0.5)]} | options
    options = {"epochs": 2, "batch_size": 20, "schedule": cnn.schedules.Linear(), "callbacks": []} | options
    history = cnn.fit(net, DATA, **options)
    return net.state_dict(), [{k: v for k, v in line.items() if "second" not in k} for line in history]


def assert_same(one, other, rtol):
    for name, value in one[0].items():
        np.testing.assert_allclose(other[0][name], value, rtol=rtol, atol=rtol, err_msg=name)
    for before, after in zip(one[1], other[1], strict=True):
        assert after == pytest.approx(before, rel=1e-10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("parts", [2, 3, 20])
def test_the_updates_are_those_of_the_whole_batch(device, parts):
    """Parts of 10; of 7, 7 and 6, and of 7 and 3 in the last batch; of single samples."""
    assert_same(trained(DEVICES[device]()), trained(DEVICES[device](), accumulate=parts), rtol=1e-10)


def test_images_that_stay_on_the_host_are_cut_too():
    resident, streamed = (trained(StandInBackend(), accumulate=3, stream=stream) for stream in (False, True))
    assert_same(resident, streamed, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_in_parts_resumes_bit_for_bit(device, tmp_path):
    path = tmp_path / "c.safetensors"

    class Stop(cnn.Callback):
        def on_step(self, run):
            run.stop = (run.epoch, run.step) == (2, 1)

    whole = trained(DEVICES[device](), accumulate=3)
    trained(DEVICES[device](), accumulate=3, callbacks=[cnn.Checkpoint(path), Stop()])
    assert_same(whole, trained(DEVICES[device](), accumulate=3, resume=path), rtol=0)
    with pytest.raises(cnn.CheckpointError, match=r"began with accumulate 3, now it is None"):
        trained(DEVICES[device](), resume=path)


def test_batch_norm_takes_the_moments_of_each_part():
    nets = [cnn.Sequential(cnn.Flatten(), cnn.BatchNorm1D(), cnn.Dense(4)) for _ in range(2)]
    for net in nets:
        net.build((1, 8, 8), backend="cpu", dtype="float64")
    options = {"optimizer": cnn.SGD(0.1), "batch_size": 50, "callbacks": []}
    cnn.fit(nets[0], DATA, accumulate=2, **options)
    loss = cnn.CrossEntropy()
    loss.build(nets[1])
    order = cnn.support.random.generator(0, cnn.support.random.SHUFFLE, 0).permutation(50)
    images = np.moveaxis(DATA.images[order] / 255, 0, -1)
    gradient = 0
    for part in (slice(0, 25), slice(25, 50)):
        compute_gradients(nets[1], loss, images[..., part], DATA.labels[order][part], divisor=50)
        gradient = gradient + nets[1].flat.grad
    np.testing.assert_allclose(nets[0].flat.value, nets[1].flat.value - 0.1 * gradient, rtol=1e-9)
    assert nets[0].state_dict()["1.num_batches_tracked"] == 2
    np.testing.assert_allclose(nets[0].state_dict()["1.running_mean"], nets[1].state_dict()["1.running_mean"])


@pytest.mark.filterwarnings("ignore:the training images are floats", "ignore:divide by zero")
def test_a_value_that_is_not_finite_is_found_in_a_later_part():
    images = np.random.default_rng(0).random((16, 1, 4, 4))
    images[-1] = 2
    net = cnn.Sequential(cnn.Flatten(), cnn.Activation(lambda x: 1 / (2 - x), lambda x: x), cnn.Dense(2))
    net.build((1, 4, 4), backend="cpu")
    options = {"optimizer": cnn.SGD(0.1), "batch_size": 16, "callbacks": [cnn.NaNGuard()]}
    with pytest.raises(
        cnn.TrainingError, match=r"step 1: first the output of layer 1 Activation \(forward\)"
    ):
        cnn.fit(net, cnn.data.Dataset(images, np.arange(16) % 2), accumulate=4, **options)


def test_memory_is_that_of_a_part():
    net = cnn.models.lenet5()
    net.build((1, 28, 28), backend="cpu")
    data = cnn.data.Dataset(np.zeros((512, 28, 28), np.uint8), np.arange(512) % 10)
    whole, cut = (memory(net, cnn.SGD(0.1), data, None, 512, accumulate=parts) for parts in (1, 8))
    assert cut.activations * 8 == whole.activations
    assert cut.optimizer == whole.optimizer + net.flat.value.nbytes
    assert cut.total < whole.total / 2


@pytest.mark.parametrize("accumulate", [0, -1, 1.5, "2", None, 17])
def test_a_number_of_parts_that_cannot_be_is_refused(accumulate):
    with pytest.raises(cnn.ArgumentError, match="accumulate is "):
        cnn.fit(cnn.models.lenet5(), DATA, batch_size=16, accumulate=accumulate)
