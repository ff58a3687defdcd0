"""A number that is not finite: the step, the layer and the direction in which it came up are named."""

import re
from itertools import pairwise

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (70, 1, 6, 6), dtype=np.uint8), RANDOM.integers(0, 4, 70))
DEVICES = {
    "compiled": lambda: backends.get("cpu", "compiled"),
    "portable": lambda: backends.get("cpu", "portable"),
    "graph": lambda: StandInBackend("compiled"),
}


class Guard(cnn.NaNGuard):
    """One that looks after every so many steps, however long they took."""

    seconds = 0.0

    def __init__(self, steps=1):
        self.steps = steps


class At(cnn.Callback):
    """Does something to the network before a step."""

    def __init__(self, epoch, step, act):
        self.when, self.act = (epoch, step), act

    def on_step(self, run):
        if (run.epoch, run.step + 1) == self.when:
            self.act(run)


class Spoil(cnn.Layer):
    """Passes everything on, and in one direction, when its turn has come, something that is not finite."""

    def __init__(self, direction, turn, value):
        self.direction, self.turn, self.value = direction, turn, value

    def build(self, input_shape, context):
        super().build(input_shape, context)
        self.turns = self.statistic("turns", (1,), 0, np.float64)  # on the device: what a step changes
        return input_shape

    def _passed(self, x, direction):
        xp = self.backend.xp
        # a sum that is not finite in the turn that was asked for alone, without asking the device
        bad = xp.where(self.turns == self.turn, self.value, 0.0) if direction == self.direction else 0.0
        return xp.add(x, bad).astype(self.dtype)

    def forward(self, x, training=False):
        if training:
            self.turns += 1
        return self._passed(x, "forward")

    def backward(self, dy, input_grad=True):
        return self._passed(dy, "backward")


def spoiled(direction, turn, value=np.inf, device=None):
    network = cnn.Sequential(
        cnn.Flatten(), cnn.Dense(8), cnn.Tanh(), cnn.Sequential(Spoil(direction, turn, value), cnn.Dense(6)),
        cnn.ReLU(), cnn.Dense(4),
    )  # fmt: skip
    network.build((1, 6, 6), backend=device or backends.get("cpu"))
    return network


def diverges(network, guard=None, callbacks=(), **more):
    """What the guard says of a training."""
    arguments = {"epochs": 3, "batch_size": 16, "callbacks": [guard or Guard(), *callbacks]} | more
    with pytest.raises(cnn.TrainingError) as caught, np.errstate(all="ignore"):
        cnn.fit(network, DATA, **arguments)
    return str(caught.value)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("steps", [1, 4, 1000])  # between two looks: the last one at the end of an epoch
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_the_layer_is_named_in_whose_forward_it_began(device, steps, value):
    message = diverges(spoiled("forward", 8, value, DEVICES[device]()), Guard(steps))
    assert "in epoch 2, step 3: first the output of layer 3.0 Spoil (forward); training has" in message
    assert message.endswith("diverged: start again with a lower learning rate, for example a tenth of it")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("steps", [1, 4, 1000])
def test_or_in_whose_backward(device, steps):
    message = diverges(spoiled("backward", 8, np.nan, DEVICES[device]()), Guard(steps))
    assert "in epoch 2, step 3: first the gradients of layer 3.0 Spoil (backward); " in message


@pytest.mark.parametrize("optimizer", [cnn.SGD, cnn.Adam])
def test_or_whose_update(optimizer):
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(6), cnn.Tanh(), cnn.Dense(4))
    network.build((1, 6, 6), backend="cpu")

    def jump(run):
        run.training.feed._rates[:] = np.inf

    message = diverges(network, optimizer=optimizer(0.01), callbacks=[At(1, 3, jump)])
    assert re.search(r"in epoch 1, step 3: first the weights of layer \d Dense \(update\)", message)


def test_a_rate_that_is_too_high_is_found_in_the_update_or_after_it():
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(6), cnn.Dense(4))
    network.build((1, 6, 6), backend="cpu")
    message = diverges(network, optimizer=cnn.SGD(1e38))
    assert re.search(r"in epoch 1, step [1-9]: first the .* of layer \d Dense \(", message)


def test_the_network_keeps_its_last_finite_weights():
    seen = []

    class Keep(cnn.Callback):
        def on_step(self, run):
            seen.append(run.network.flat.value.copy())

    network = spoiled("backward", 8)
    diverges(network, Guard(1000), [Keep()])
    np.testing.assert_array_equal(network.flat.value, seen[6])


def test_weights_that_a_callback_spoils_are_not_laid_to_a_layer():
    def poison(run):
        run.network.flat.value[:] = np.nan

    message = diverges(spoiled("none", 0), callbacks=[At(2, 4, poison)])
    assert "in epoch 2, but not in a training step: check the callbacks" in message


def test_a_weight_that_no_output_shows_is_found():
    def hide(run):  # ReLU turns it into 0
        run.network.parameters["3.1.bias"].value[0] = -np.inf

    message = diverges(spoiled("none", 0), callbacks=[At(1, 2, hide)])
    assert message.startswith("the weights became NaN or infinite in epoch 1")


def test_a_validation_loss_is_looked_at_too():
    class OnlyThere(cnn.CrossEntropy):
        def evaluate(self, y, labels, losses, dy, divisor, sums):
            super().evaluate(y, labels, losses, dy, divisor, sums)
            if y.shape[1] == 70:
                sums[:1] = np.nan

    message = diverges(spoiled("none", 0), validation=DATA, loss=OnlyThere())
    assert message.startswith(
        "the loss of the evaluated images became nan in epoch 1, although training gave finite values"
    )


def test_a_container_of_ones_own_is_one_layer():
    class Twice(cnn.Sequential):  # what its layers would give one after the other is no part of it
        def forward(self, x, training=False):
            return super().forward(super().forward(x, training), training)

        def backward(self, dy, input_grad=True):
            return super().backward(super().backward(dy), input_grad)

    network = cnn.Sequential(cnn.Flatten(), Twice(cnn.Dense(36), Spoil("forward", 15, np.nan)), cnn.Dense(4))
    network.build((1, 6, 6), backend="cpu")
    assert "epoch 2, step 3: first the output of layer 1 Twice (forward)" in diverges(network)


def test_a_layer_of_ones_own_may_read_its_gradient_until_it_returns_here_too():
    stays = []

    class Reads(cnn.Sequential):
        def backward(self, dy, input_grad=True):
            before = dy.copy()
            dx = super().backward(dy, input_grad)
            stays.append(np.array_equal(dy, before))
            return dx

    reads = Reads(*(cnn.Dense(8) for _ in range(6)))
    spoil = Spoil("backward", 8, np.nan)
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(8), spoil, reads, cnn.Dense(8), cnn.Dense(4))
    network.build((1, 6, 6), backend="cpu")
    assert "first the gradients of layer 2 Spoil (backward)" in diverges(network)
    assert all(stays)


def test_where_there_is_no_memory_to_look_that_hides_nothing(monkeypatch):
    def full(*_):
        raise cnn.OutOfMemory("cpu", 1, 0, "take less")

    monkeypatch.setattr("cnn.training.callbacks.find_fault", full)
    message = diverges(spoiled("forward", 8))
    assert message == "the loss became nan in epoch 2: training has diverged; lower the learning rate"


def test_between_two_looks_nothing_crosses():
    device, seen = StandInBackend("portable"), []

    class Watch(cnn.Callback):
        def on_step(self, run):
            seen.append((device.crossings, device.synchronizations))

    cnn.fit(spoiled("none", 0, device=device), DATA, batch_size=2, callbacks=[Guard(16), Watch()])
    differing = sum(before != after for before, after in pairwise(seen))
    assert len(seen) == 35
    assert differing == 2  # after steps 16 and 32


def test_the_command_says_it_in_one_line_and_keeps_the_last_checkpoint(command, own_data, monkeypatch):
    monkeypatch.setattr(cnn.NaNGuard, "seconds", 0.0)
    network = (
        "--model",
        "notebook",
        "--kernels",
        "portable",
        "--data",
        own_data,
        "--batch-size",
        16,
        "--out",
        "run",
    )
    code, out, err = command("train", *network, "--learning-rate", 1e30, "--no-report")
    assert (code, out) == (1, "")
    assert re.match(
        r"error: the (loss|weights) .* in epoch 1, step \d: first the .*\); ", err.splitlines()[-1]
    )
    assert err.endswith("; there is no earlier checkpoint\n")
