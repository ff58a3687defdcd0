"""What is sent to another process or copied: networks, layers, optimizers, data sets, devices."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers.fake_cupy import fake_cupy

import backends
import cnn
from backends import registry
from backends.errors import Notice
from cnn.support.errors import ArgumentError, DataError, ShapeError

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
TRAIN = cnn.data.Dataset(IMAGES, np.arange(24) % 3)


class Wide(cnn.Sequential):
    """A network of one's own, with other arguments than layers and an attribute."""

    def __init__(self, width):
        super().__init__(cnn.Flatten(), cnn.Dense(width), cnn.Dense(3))
        self.name = f"wide {width}"


class Counted(cnn.ReLU):
    """A layer with a statistic."""

    def build(self, input_shape, context):
        super().build(input_shape, context)
        self.seen = self.statistic("seen", (1,), 0)
        return input_shape

    def forward(self, x, training=False):
        if training:
            self.seen[...] += x.shape[-1]
        return super().forward(x, training)


NETWORKS = {
    "plain": lambda: cnn.Sequential(cnn.Conv2D(3, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(3)),
    "nested": lambda: cnn.Sequential(cnn.Sequential(cnn.Flatten(), cnn.Tanh()), cnn.Dense(3)),
    "with a statistic": lambda: cnn.Sequential(cnn.Flatten(), Counted(), cnn.Dense(3)),
    "of one's own class": lambda: Wide(5),
}


def sent(thing, protocol=pickle.DEFAULT_PROTOCOL):
    return pickle.loads(pickle.dumps(thing, protocol))


def built(make, **named):
    network = make()
    network.build((1, 8, 8), **{"backend": backends.get("cpu", kernels="portable"), "seed": 3} | named)
    return network


def train(network, optimizer):
    return cnn.fit(network, TRAIN, epochs=2, batch_size=8, optimizer=optimizer, seed=1, callbacks=[])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_arrives_with_its_weights_statistics_and_place(kind, protocol):
    network = built(NETWORKS[kind], dtype="float64", fuse=False)
    network.forward(network.backend.asarray(np.ones((1, 8, 8, 2))), training=True)
    twin = sent(network, protocol)
    assert type(twin) is type(network)
    assert repr(twin) == repr(network)
    assert (twin.dtype, twin.context.fuse, twin.input_shape) == ("float64", False, (1, 8, 8))
    assert twin.backend is network.backend
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], array)
    np.testing.assert_array_equal(twin.predict(IMAGES), network.predict(IMAGES))
    twin.flat.value[...] = 0
    assert network.flat.value.any()
    assert getattr(twin, "name", None) == getattr(network, "name", None)


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_that_is_not_built_arrives_so_and_so_does_one_that_could_not_be(kind):
    network = NETWORKS[kind]()
    with pytest.raises((ShapeError, ArgumentError)):
        network.build((1, 8, 8), backend="cpu", dtype="float16")
    network.layers.append(cnn.Reshape((7,)))
    with pytest.raises(ShapeError):
        network.build((1, 8, 8), backend="cpu")
    for twin in (sent(network), copy.deepcopy(network)):
        assert not twin.built
        del twin.layers[-1]
        assert built(lambda twin=twin: twin).predict(IMAGES).shape == (24, 3)


def test_a_layer_goes_without_a_network_or_with_it():
    assert repr(sent(cnn.Conv2D(3, 5, padding=1))) == repr(cnn.Conv2D(3, 5, padding=1))
    network = built(NETWORKS["nested"])
    for layer in network.layers:
        for take in (sent, copy.deepcopy, copy.copy):
            with pytest.raises(
                ArgumentError, match=r"^layer \d \w+ has its place .*: take the network, or layer.fresh"
            ):
                take(layer)
        assert repr(sent(layer.fresh())) == repr(layer)


def test_another_process_computes_the_same(tmp_path):
    network = built(NETWORKS["plain"])
    code = """
import pickle, sys
network, images = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(network.predict(images)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps((network, IMAGES)), capture_output=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(pickle.loads(done.stdout), network.predict(IMAGES), rtol=1e-6)


@pytest.mark.parametrize("optimizer", [cnn.SGD(0.1), cnn.SGD(0.1, momentum=0.9), cnn.AdamW(0.01)])
@pytest.mark.parametrize("take", [sent, copy.deepcopy])
def test_an_optimizer_goes_on_where_it_was_with_its_network(optimizer, take):
    fresh = take(optimizer)
    assert fresh.present_settings == optimizer.present_settings
    network = built(NETWORKS["plain"])
    train(network, optimizer)
    twin, other = take((network, optimizer))
    assert other.flat is twin.flat is not network.flat
    assert train(twin, other)[-1]["loss"] == train(network, optimizer)[-1]["loss"]
    np.testing.assert_array_equal(twin.flat.value, network.flat.value)


def test_a_loss_that_was_used_arrives_unused():
    loss, network = cnn.CrossEntropy(), built(NETWORKS["plain"])
    cnn.fit(network, TRAIN, epochs=1, loss=loss, callbacks=[])
    cnn.fit(built(NETWORKS["plain"]), TRAIN, epochs=1, loss=sent(loss), callbacks=[])
    assert len(pickle.dumps(loss)) < 200


def test_callbacks_arrive_unused_and_used(tmp_path):
    callbacks = [
        cnn.Progress(),
        cnn.NaNGuard(),
        cnn.CSVLog(tmp_path / "log"),
        cnn.Checkpoint(tmp_path / "kept"),
    ]
    assert [type(each) for each in sent(callbacks)] == [type(each) for each in callbacks]
    cnn.fit(built(NETWORKS["plain"]), TRAIN, epochs=1, callbacks=callbacks)
    cnn.fit(built(NETWORKS["plain"]), TRAIN, epochs=1, callbacks=sent(callbacks))


def test_a_data_set_arrives_and_one_in_a_file_stays_there(tmp_path):
    twin = sent(TRAIN)
    np.testing.assert_array_equal(twin.images, TRAIN.images)
    assert (twin.labels.tolist(), twin.classes) == (TRAIN.labels.tolist(), TRAIN.classes)

    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (100, 40, 50), dtype=np.uint8))
    mapped = cnn.data.Dataset(np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(100) % 4)
    for part in (mapped, cnn.data.Dataset(mapped.images[30:60], mapped.labels[30:60])):
        kept = pickle.dumps(part)
        assert len(kept) < 10_000
        twin = pickle.loads(kept)
        assert cnn.data.readers.mapped.mapping(twin.images) is not None
        np.testing.assert_array_equal(twin.images, part.images)
    (tmp_path / "x.npy").unlink()
    with pytest.raises(
        DataError, match=r"x.npy: this file contains the images of a data set, .*: provide the file"
    ):
        pickle.loads(kept)


class TestDevices:
    def test_a_device_goes_by_its_name(self):
        for kernels in ("auto", "portable", "signal"):
            device = backends.get("cpu", kernels=kernels)
            assert sent(device) is copy.deepcopy(device) is device

    def test_one_that_the_other_process_lacks_becomes_the_one_that_auto_takes(self, machine):
        machine(["cupy-cuda12x"], 13000, fake_cupy(2))
        network = built(NETWORKS["plain"], backend=backends.get("cuda:1", kernels="portable"))
        assert sent(network).backend is network.backend
        expected, kept = network.predict(IMAGES), pickle.dumps(network)
        machine(["cupy-cuda12x"], 13000, fake_cupy(1))
        registry._made.clear()
        with pytest.warns(
            Notice, match="cuda:1 with portable kernels cannot be used .* takes cuda:0 instead: cuda:1 "
        ):
            assert pickle.loads(kept).backend.name == "cuda:0"
        machine()
        registry._made.clear()
        with pytest.warns(Notice, match="takes cpu instead: CuPy is not installed"):
            twin = pickle.loads(kept)
        assert (twin.backend.name, twin.backend.kernels.name) == ("cpu", "portable")
        np.testing.assert_allclose(twin.predict(IMAGES), expected, rtol=1e-5)


@pytest.mark.parametrize("twin_of", [sent, copy.deepcopy])
def test_training_goes_on_with_the_random_numbers_that_come_next(twin_of):
    network = built(lambda: cnn.Sequential(cnn.Flatten(), cnn.Dropout(0.5), cnn.Dense(3)))
    optimizer = cnn.SGD(0.1, momentum=0.9)
    cnn.fit(network, TRAIN, optimizer=optimizer, callbacks=[])
    twin = twin_of((network, optimizer))
    for net, own in (network, optimizer), twin:
        cnn.fit(net, TRAIN, optimizer=own, callbacks=[])
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value, twin[0].state_dict()[name], err_msg=name)
