"""Whole trainings on a GPU: repeatable, the same recorded or not, and without growth."""

import gc

import numpy as np
import pytest

import backends
import cnn
from cnn.training.evaluation import make_feed, make_loss
from cnn.training.metrics import Totals
from cnn.training.step import TrainingStep

pytestmark = pytest.mark.gpu

KERNELS = ["compiled", "portable"]


@pytest.fixture(scope="module")
def digits():
    train, test = cnn.data.load("mnist")
    return cnn.data.Dataset(train.images[:2000], train.labels[:2000], classes=10), test


def trained(digits, kernels="compiled", model="lenet5", epochs=2, **options):
    """The weights after some epochs of 64 images a batch, the last of which is short."""
    network = cnn.models.get(model, 10)
    network.build((1, 28, 28), backend=backends.get("cuda", kernels))
    options = {"batch_size": 64, "callbacks": []} | options
    history = cnn.fit(network, digits[0], epochs=epochs, **options)
    return network.state_dict(), history


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("model", ["lenet5", "notebook"])
@pytest.mark.parametrize("graph", [True, False])
def test_the_same_seed_gives_the_same_bits(digits, kernels, model, graph):
    first, second = (trained(digits, kernels, model, graph=graph)[0] for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


@pytest.mark.filterwarnings("error")  # of a step that cannot be recorded
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("optimizer", [lambda: cnn.SGD(0.05, momentum=0.9), lambda: cnn.AdamW(0.001)])
def test_a_recorded_training_gives_the_weights_of_a_plain_one(digits, kernels, optimizer):
    recorded, plain = (trained(digits, kernels, optimizer=optimizer(), graph=g)[0] for g in (True, False))
    for name, value in plain.items():
        np.testing.assert_allclose(recorded[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_gpu_learns_what_the_cpu_learns(digits, kernels):
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=backends.get("cpu"))
    cnn.fit(network, digits[0], epochs=1, batch_size=64, callbacks=[])
    # float32 alone sets the two apart, a little more in each step
    for name, value in trained(digits, kernels, epochs=1)[0].items():
        np.testing.assert_allclose(value, network.state_dict()[name], rtol=0.1, atol=0.02, err_msg=name)


@pytest.mark.parametrize("graph", [True, False])
def test_data_that_stay_on_the_host_give_the_same_bits(digits, graph):
    streamed, resident = (trained(digits, graph=graph, stream=s)[0] for s in (True, False))
    for name, value in resident.items():
        np.testing.assert_array_equal(streamed[name], value, err_msg=name)


@pytest.mark.parametrize("graph", [True, False])
def test_nothing_grows_in_1000_steps(digits, graph):
    device = backends.get("cuda", "compiled")
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=device)
    optimizer, loss, totals = cnn.SGD(0.01, momentum=0.9), make_loss(network, None), Totals(network)
    optimizer.build(network)
    feed = make_feed(network, digits[0], 64)
    feed.start(np.arange(2000), np.full(len(feed), 0.01))
    step = TrainingStep(network, loss, optimizer, feed, totals, graph)
    for _ in range(20):
        step()
    gc.collect()
    device.synchronize()
    before, crossings = device.memory(), device.crossings
    for _ in range(1000):
        step()
    device.synchronize()
    after = device.memory()
    assert device.crossings == crossings
    assert after["used"] == before["used"]
    assert after["free"] >= before["free"] - (4 << 20)  # others use the device too
    assert np.isfinite(totals.read()["loss"])


def test_a_step_that_cannot_be_recorded_leaves_no_memory_behind():
    device = backends.get("cuda")

    def step():
        temporary = device.zeros(10_000_000, "float32")
        float(temporary[0])  # a copy to the host

    gc.collect()  # what other tests left behind
    left = []
    for _ in range(3):
        with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
            device.graph(step)()
        left.append(device.memory())
    assert left[2]["used"] == left[0]["used"]
    assert left[2]["free"] >= left[0]["free"] - (4 << 20)  # others use the device too


def test_70_000_groups():
    results = []
    for device in (backends.get("cuda", "compiled"), backends.get("cpu")):
        random, window = np.random.default_rng(0), backends.Window((2, 2))
        x, weight, dy = (
            device.asarray(random.standard_normal((70_000, *shape)), dtype="float32")
            for shape in ((3, 3, 1), (1, 2, 2), (2, 2, 1))
        )
        written = y, dx, dw = [device.asarray(np.zeros(a.shape), dtype="float32") for a in (dy, x, weight)]
        device.kernels.conv2d(x, weight, y, window, 70_000)
        device.kernels.conv2d_grad_input(dy, weight, dx, window, 70_000)
        device.kernels.conv2d_grad_weight(x, dy, dw, window, 70_000)
        results.append([device.to_host(array) for array in written])
    for found, right in zip(*results, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)


def test_lenet5_reaches_98_7_percent():
    train, test = cnn.data.load("mnist")
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend=backends.get("cuda", "compiled"))
    options = {"epochs": 5, "batch_size": 128, "schedule": cnn.schedules.Linear(warmup=0.2), "callbacks": []}
    history = cnn.fit(network, train, test, optimizer=cnn.SGD(0.1, momentum=0.9), **options)
    assert history[-1]["validation_accuracy"] > 0.987


def test_a_request_that_no_gpu_can_fulfil():
    device = backends.get("cuda")
    with pytest.raises(backends.OutOfMemory, match=r"cuda:\d is out of memory: .* were requested"):
        device.zeros(device.memory()["total"], "float64")
    assert device.to_host(device.zeros(3, "float32")).tolist() == [0, 0, 0]
