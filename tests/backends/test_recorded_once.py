"""What a callback computes in a recorded training run moves no array of the step more than once."""

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from backends import graph
from backends.memory import Buffer

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (70, 1, 10, 10), dtype=np.uint8), RANDOM.integers(0, 4, 70))
DEVICES = {
    "the stand-in": StandInBackend,
    "the CPU": lambda: backends.CpuBackend("portable"),
    "compiled": lambda: backends.CpuBackend("compiled"),
}


class EachStep(cnn.Callback):
    """Calls a function with the run after each step."""

    def __init__(self, function):
        self.on_step = function


CALLBACKS = {
    "predict": lambda run: run.network.predict(DATA.images),
    "predict in small batches": lambda run: run.network.predict(DATA.images, batch_size=8),
    "predict one by one": lambda run: [run.network.predict(DATA.images[i : i + 1]) for i in range(3)],
    "evaluate": lambda run: cnn.evaluate(run.network, DATA, metrics=[cnn.metrics.TopK(2)]),
    "evaluate with the loss of the run": lambda run: cnn.evaluate(run.network, DATA, run.training.loss),
    "evaluate without recording": lambda run: cnn.evaluate(run.network, DATA, graph=False),
}
LOSSES = {
    "plain": cnn.CrossEntropy,
    "weighted": lambda: cnn.CrossEntropy(class_weights=[1, 2, 1, 3]),
}


@pytest.fixture
def recordings(monkeypatch):
    """The recordings of training steps, as they are made."""
    found = []
    launch = graph.RepeatedStep.__call__, graph.CapturedStep.capture

    def repeat(self):
        before = self._recording
        launch[0](self)
        if self._recording is not before and self._step.func is cnn.training.step.take_step:
            found.append(self)

    def capture(self):
        if self._step.func is cnn.training.step.take_step:
            found.append(self)
        launch[1](self)

    monkeypatch.setattr(graph.RepeatedStep, "__call__", repeat)
    monkeypatch.setattr(graph.CapturedStep, "capture", capture)
    return found


def train(device, function, loss=cnn.CrossEntropy, graph=True):
    network = cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1),
        cnn.BatchNorm2D(),
        cnn.ReLU(),
        cnn.MaxPool2D(2),
        cnn.Flatten(),
        cnn.Dense(4),
    )
    network.build((1, 10, 10), backend=device)
    cnn.fit(network, DATA, loss=loss(), epochs=3, batch_size=16, callbacks=[EachStep(function)], graph=graph)
    return network.state_dict()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("function", CALLBACKS)
@pytest.mark.parametrize("device", DEVICES)
def test_the_step_is_recorded_again_at_most_once(device, function, loss, recordings):
    recorded = train(DEVICES[device](), CALLBACKS[function], LOSSES[loss])
    assert 1 <= len(recordings) <= 2
    plain = train(DEVICES[device](), lambda run: None, LOSSES[loss], graph=False)
    for name, array in plain.items():
        np.testing.assert_array_equal(recorded[name], array, err_msg=name)


def test_a_new_buffer_moves_nothing_and_a_larger_one_does():
    device = StandInBackend()
    buffer = Buffer(device, np.float32)
    buffer.view((0,))
    first = buffer.view((6,))
    assert device.allocations == 0
    assert buffer.view((2, 3)).base is first.base
    assert device.allocations == 0
    buffer.view((7,))
    assert device.allocations == 1
    buffer.release()
    assert device.allocations == 2
    buffer.release()
    buffer.view((9,))
    assert device.allocations == 2


@pytest.mark.parametrize("device", ["the stand-in", "the CPU"])
def test_a_loss_that_takes_new_arrays_has_the_step_recorded_again(device, recordings):
    def rebuild(run):
        if run.step in (2, 4):
            run.training.loss.build(run.network)

    train(DEVICES[device](), rebuild)
    assert len(recordings) > 4
