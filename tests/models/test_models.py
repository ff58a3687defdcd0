"""The models by name: their sizes are those published, and they train on what they are for."""

import numpy as np
import pytest

import cnn
from cnn import models

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)
PARAMETERS = {  # for 10 classes: as published, or counted from the published description
    "notebook": (MNIST, 317_035),
    "lenet5": (MNIST, 61_706),
    "mnist-pytorch": (MNIST, 1_199_882),
    "mnist-keras": (MNIST, 34_826),
    "mnist-small": (MNIST, 15_578),
    "mnist-quick": (MNIST, 81_146),
    "photo-small": (CIFAR, 25_682),
    "vgg6": (CIFAR, 307_946),
    "resnet8": (CIFAR, 75_290),
    "resnet20": (CIFAR, 269_722),
    "resnet32": (CIFAR, 464_154),
    "resnet9": (CIFAR, 6_573_120),
    "wideresnet16-4": (CIFAR, 2_748_890),
    "mobilenet-small": (CIFAR, 205_642),
    "airbench93": (CIFAR, 569_016),
    "airbench94": (CIFAR, 1_971_640),
    "airbench-grey": (MNIST, 565_428),
    "airbench-digits": (MNIST, 144_564),
}


def test_every_model_is_in_the_table():
    assert set(PARAMETERS) == set(models.MODELS)


@pytest.mark.parametrize("name", models.MODELS)
def test_its_number_of_parameters(name):
    shape, count = PARAMETERS[name]
    assert models.make(name, 10, shape).count_parameters(shape) == count


@pytest.mark.parametrize("name", models.MODELS)
def test_it_takes_other_images_and_classes(name):
    network = models.make(name, classes=7, input_shape=(2, 40, 36))
    assert network.build((2, 40, 36), backend="cpu") == (7,)
    assert network.predict(np.zeros((1, 2, 40, 36), np.float32)).shape == (1, 7)


@pytest.mark.parametrize("name", ["mnist-small", "photo-small", "resnet8", "mobilenet-small", "airbench93"])
def test_it_learns_a_batch(name):
    random = np.random.default_rng(0)
    data = cnn.data.Dataset(random.integers(0, 256, (16, 3, 32, 32), dtype=np.uint8), np.arange(16) % 2)
    network = models.make(name, 2, data.shape)
    network.build(data.shape, backend="cpu")
    history = cnn.fit(network, data, optimizer=cnn.Adam(0.003), epochs=12, batch_size=16, callbacks=[])
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]


def test_images_that_are_too_small_are_refused():
    with pytest.raises(cnn.ShapeError, match="layer "):
        models.make("airbench94", 10, (3, 8, 8))


@pytest.mark.parametrize("name", ["resnet", "ResNet20", 20, None])
def test_an_unknown_name_says_which_there_are(name):
    with pytest.raises(cnn.ArgumentError, match=r"unknown model .*expected notebook, lenet5, .*airbench94"):
        models.make(name)


def test_counting_takes_no_memory_and_leaves_the_network_as_it_was():
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(10**6))
    assert network.count_parameters((10**6,)) == 10**12 + 10**6
    assert not network.built


@pytest.mark.parametrize("name", ["mnist-pytorch", "resnet8", "resnet20", "resnet32"])
def test_reference_names_are_those_of_pytorch(name):
    network = models.make(name)
    network.build(PARAMETERS[name][0], backend="cpu")
    names = models.reference_names(name, network.shapes)
    assert list(names) == list(network.shapes)
    assert len(set(names.values())) == len(names)
    assert names["0.weight"] == "conv1.weight"
    if name == "resnet20":
        assert names["3.0.weight"] == "layer1.0.conv1.weight"
        assert list(names.values())[-1] == "layer3.2.bn2.num_batches_tracked"
        assert "linear.bias" in names.values()
        assert names["1.running_mean"] == "bn1.running_mean"


def test_dirac_weights_pass_channels_through():
    network = cnn.Sequential(cnn.Conv2D(5, 3, padding=1, bias=False, initializer="dirac"))
    network.build((3, 6, 6), backend="cpu", dtype="float64")
    x = np.random.default_rng(0).random((3, 6, 6, 2))
    np.testing.assert_array_equal(network.forward(x)[:3], x)
    assert network.parameters["0.weight"].value[3:].std() > 0.05
