"""Evaluation and prediction, recorded by the device: what it is asked for, and the same results."""

import gc
import warnings

import numpy as np
import pytest
from helpers.standin import StandInBackend, counters

import cnn
from cnn.data import inference
from cnn.data.inference import Inference, answers
from cnn.layers import Layer
from cnn.training.evaluation import make_feed

RANDOM = np.random.default_rng(0)
BATCHES = inference.ENOUGH_TO_RECORD


def digits(count):
    images = RANDOM.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)
    return cnn.data.Dataset(images, RANDOM.integers(0, 4, count), classes=4)


TRAIN = digits(40)
DATA = digits(16 * BATCHES + 6)  # in batches of 16
VALIDATION = digits(256 * BATCHES + 9)  # in batches of 256, as in training


class Noting(StandInBackend):
    """Counts the steps that it records."""

    recorded = 0

    def _capture(self, step):
        self.recorded += 1
        return super()._capture(step)


def network(*more):
    made = cnn.Sequential(cnn.Conv2D(3, 3), cnn.ReLU(), *more, cnn.Flatten(), cnn.Dense(4))
    made.build((1, 4, 4), backend=Noting())
    return made


def fitted(net, epochs, **options):
    history = cnn.fit(net, TRAIN, VALIDATION, epochs=epochs, batch_size=10, **{"callbacks": [], **options})
    return [{k: v for k, v in line.items() if "second" not in k} for line in history]


@pytest.mark.parametrize("tta", [None, "mirror"])
def test_a_steady_batch_of_an_evaluation_is_one_launch_and_nothing_else(tta):
    net = network()
    feed = make_feed(net, DATA, 16, tta=tta)
    asked = []
    run = Inference(feed, lambda: answers(net, feed))
    for epoch in range(2):
        for _ in run.batches():
            asked.append((counters.graph_launches, counters.works, net.backend.crossings))
            net.backend.reset_counters()
        if epoch == 0:
            asked.clear()
    first, *steady, short = asked
    assert first[0] == 1
    assert steady == [(1, 0, 0)] * (BATCHES - 1)
    assert short[0] == 0
    assert net.backend.recorded == 1


def test_an_evaluation_crosses_once_for_its_result_and_once_for_each_thing_that_it_brings():
    crossings = []
    for data in (DATA, digits(16 * 2 * BATCHES)):
        net = network()
        net.backend.reset_counters()
        cnn.evaluate(net, data, batch_size=16)
        crossings.append(net.backend.crossings)
        assert counters.graph_launches == len(data) // 16
    assert crossings[0] == crossings[1]


def test_predict_crosses_once_more_for_each_batch_of_results():
    crossings = []
    for batches in (BATCHES, BATCHES + 5):
        net = network()
        net.backend.reset_counters()
        net.predict(digits(16 * batches).images, batch_size=16)
        crossings.append(net.backend.crossings)
        assert counters.graph_launches == batches
    assert crossings[1] == crossings[0] + 5


@pytest.mark.parametrize("count", [1, 16, 16 * BATCHES - 1])
def test_few_images_are_predicted_without_a_recording(count):
    net = network()
    net.predict(DATA.images[:count], batch_size=16)
    assert net.backend.recorded == 0


@pytest.mark.parametrize("tta", [None, "mirror"])
def test_recorded_or_not_the_results_are_the_same_bit_for_bit(tta, monkeypatch):
    recorded = network()
    found = recorded.predict(DATA.images, 16, tta), cnn.evaluate(recorded, DATA, batch_size=16, tta=tta)
    assert recorded.backend.recorded == 2
    monkeypatch.setattr(inference, "ENOUGH_TO_RECORD", 1000)
    plain = network()
    np.testing.assert_array_equal(found[0], plain.predict(DATA.images, 16, tta))
    assert found[1] == cnn.evaluate(plain, DATA, batch_size=16, tta=tta)
    assert plain.backend.recorded == 0


def test_without_a_graph_nothing_is_recorded_and_the_results_are_the_same():
    recorded, plain = network(), network()
    np.testing.assert_array_equal(
        plain.predict(DATA.images, 16, graph=False), recorded.predict(DATA.images, 16)
    )
    found = cnn.evaluate(plain, DATA, batch_size=16, graph=False)
    assert found == cnn.evaluate(recorded, DATA, batch_size=16)
    assert (plain.backend.recorded, recorded.backend.recorded) == (0, 2)


@pytest.mark.parametrize("epochs", [2, 4])
def test_training_and_validation_record_again_once_and_not_in_each_epoch(epochs):
    net = network()
    fitted(net, epochs)
    # the step, the validation, and the step again because the validation's batches are larger
    assert net.backend.recorded == 3


def test_every_epoch_is_validated_with_the_weights_and_the_sums_of_then():
    recorded, plain = fitted(network(), 3), fitted(network(), 3, graph=False)
    assert recorded == plain
    assert len({line["validation_loss"] for line in recorded}) == 3


def test_without_a_graph_validation_is_not_recorded_either():
    net = network()
    net.backend.reset_counters()
    fitted(net, 2, graph=False)
    assert (net.backend.recorded, counters.graph_launches) == (0, 0)


@pytest.mark.parametrize("work", [cnn.evaluate, lambda net, data, **size: net.predict(data.images, **size)])
def test_the_data_leave_the_device_at_once(work):
    net = network()
    work(net, DATA, batch_size=16)  # makes the buffers of the network
    gc.collect()
    gc.disable()
    try:
        before = counters.live_bytes
        work(net, DATA, batch_size=16)
        assert counters.live_bytes == before
    finally:
        gc.enable()


class Stubborn(Layer):
    """Looks at its input on the host."""

    def forward(self, x, training=False):
        y = self.output(x, training)
        self.backend.xp.multiply(x, 1.0 + float(x.max()) * 0, out=y)
        return y

    def backward(self, dy, input_grad=True):
        return dy


def test_a_layer_that_cannot_be_recorded_gives_one_note_in_training_and_right_results():
    with pytest.warns(RuntimeWarning, match="runs without a CUDA graph") as said:
        found = fitted(network(Stubborn()), 3)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found == fitted(network(Stubborn()), 3, graph=False)


def test_a_layer_that_cannot_be_recorded_gives_one_note_in_an_evaluation_and_right_results():
    with pytest.warns(RuntimeWarning, match="runs without a CUDA graph") as said:
        found = cnn.evaluate(network(Stubborn()), DATA, batch_size=16)
    assert len(said) == 1
    assert found == cnn.evaluate(network(), DATA, batch_size=16)


def test_batches_of_another_size_are_recorded_again():
    net = network()
    feed, found = make_feed(net, DATA, 16), []

    def step():
        found[:] = [answers(net, feed)[0]]

    def outputs():
        return np.concatenate([net.backend.to_host(found[0]) for _ in run.batches()], axis=-1)

    run = Inference(feed, step)
    large = outputs()
    feed.halve()  # as if memory had run out
    np.testing.assert_allclose(outputs(), large, rtol=1e-5)
    assert net.backend.recorded == 2
