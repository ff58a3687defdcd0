"""Outputs and gradients share memory: what layers say that they read, and what stays valid for how long."""

import numpy as np
import pytest

import backends
import cnn
from cnn.layers.container import Container
from cnn.layers.fusion import is_dropped, reads_input, reads_output
from cnn.layers.planning import inference_bytes, training_bytes
from cnn.selftest.cases import LAYERS

RANDOM = np.random.default_rng(0)


def built(*layers, shape=(3, 6, 6), fuse=True):
    net = cnn.Sequential(*layers)
    net.build(shape, backend=backends.CpuBackend("portable"), seed=3, dtype="float64", fuse=fuse)
    return net


def normal(*shape):
    return RANDOM.standard_normal(shape)


def block(channels, stride=1):
    shortcut = cnn.Conv2D(channels, 1, stride=stride) if stride > 1 else None
    inside = cnn.Conv2D(channels, 3, stride=stride, padding=1), cnn.BatchNorm2D(), cnn.ReLU()
    after = cnn.Conv2D(channels, 3, padding=1), cnn.BatchNorm2D()
    return cnn.Residual(*inside, *after, shortcut=shortcut)


def blocks(*channels, activation=cnn.ReLU, stride=1):
    return [layer for each in channels for layer in (block(each, stride=stride), activation())]


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
@pytest.mark.parametrize("what", ["input", "output"])
def test_backward_reads_neither_input_nor_output_if_the_layer_says_so(case, what):
    net = built(case.make(), shape=case.input_shape)
    (layer,) = net.passes
    reads = {"input": reads_input, "output": reads_output}[what]
    if layer.is_view or reads(layer):
        pytest.skip(f"it reads its {what}")
    x, dy = normal(*case.input_shape, 5), normal(*net.output_shape, 5)
    found = []
    for is_lost in (False, True):
        seen = x.copy()
        y = layer.forward(seen, training=True)
        if is_lost:
            {"input": seen, "output": y}[what].fill(np.nan)
        dx = layer.backward(dy).copy()
        found.append({"": dx} | {name: each.grad.copy() for name, each in net.parameters.items()})
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


def test_a_layer_of_ones_own_is_taken_to_read_both():
    class Own(cnn.Dropout):
        def backward(self, dy, input_grad=True):
            return super().backward(dy, input_grad)

    assert not reads_input(cnn.Dropout())
    assert not reads_output(cnn.Dropout())
    assert reads_input(Own())
    assert reads_output(Own())
    assert is_dropped(cnn.Conv2D(2, 3), cnn.Dropout())
    assert not is_dropped(cnn.Conv2D(2, 3), Own())
    assert not is_dropped(cnn.Conv2D(2, 3), cnn.Flatten())  # which is a view of it


def test_the_output_of_the_network_stays_after_the_backward_pass():
    net = built(cnn.Conv2D(4, 3, padding=1), cnn.ReLU(), block(4), cnn.Dropout(0.1))
    y = net.forward(normal(3, 6, 6, 4), training=True)
    before = y.copy()
    net.backward(normal(*y.shape))
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("fuse", [True, False])
def test_a_second_backward_for_the_same_forward_gives_the_same_and_changes_no_statistics(fuse):
    net = built(*blocks(4, 6, stride=2), cnn.Dropout(0.3), cnn.Flatten(), cnn.Dense(3), fuse=fuse)
    x, dy, found = normal(3, 6, 6, 4), normal(3, 4), []
    y = net.forward(x, training=True)
    before = [y.copy(), *(value.copy() for value in net.statistics.values())]
    for _ in range(3):
        found.append([net.backward(dy).copy(), net.flat.grad.copy()])
    for again in found[1:]:
        for one, other in zip(found[0], again, strict=True):
            np.testing.assert_array_equal(one, other)
    for one, other in zip(before, [y, *net.statistics.values()], strict=True):
        np.testing.assert_array_equal(one, other)
    other = normal(3, 4)
    expected = net.backward(other).copy()
    net.forward(x, training=True)
    np.testing.assert_array_equal(net.backward(other), expected)


def test_an_inference_before_the_backward_pass_changes_nothing():
    net = built(
        cnn.Conv2D(4, 3, padding=1),
        block(4),
        cnn.MaxPool2D(2),
        block(6, stride=2),
        cnn.Flatten(),
        cnn.Dense(3),
    )
    x, dy = normal(3, 6, 6, 4), normal(3, 4)
    found = []
    for between in (0, 7):
        y = net.forward(x, training=True)
        if between:
            net.forward(normal(3, 6, 6, between))
        found.append([y.copy(), net.backward(dy).copy(), net.flat.grad.copy()])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("training", [True, False])
def test_the_input_may_be_an_output_of_the_same_network(training):
    net = built(cnn.Conv2D(3, 3, padding=1), cnn.ReLU(), cnn.Residual(cnn.Conv2D(3, 3, padding=1)))
    x, dy = net.forward(normal(3, 6, 6, 4)), normal(3, 6, 6, 4)
    results = []
    for given in (x.copy(), x):
        if given is x:
            x[...] = results[0][0]  # which another call may have overwritten
        results.append([given.copy(), net.forward(given, training).copy()])
        results[-1] += [net.backward(dy).copy(), net.flat.grad.copy()] if training else []
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


NETWORKS = {
    "plain": lambda: [cnn.Conv2D(4, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(5), cnn.Dropout(), cnn.Tanh()],
    "blocks": lambda: [cnn.Conv2D(4, 3, padding=1), *blocks(4, 4, 4, 4)],
    "smaller and smaller": lambda: blocks(8, 16, 16, activation=cnn.ReLU, stride=2),
    "addends that stay": lambda: blocks(8, 16, 16, activation=cnn.GELU, stride=2),
    "activations first": lambda: [
        cnn.Conv2D(8, 3, padding=1),
        *(cnn.Residual(cnn.BatchNorm2D(), cnn.ReLU(), cnn.Conv2D(8, 3, padding=1)) for _ in range(5)),
    ],
    "branches": lambda: [
        cnn.Parallel(cnn.Conv2D(2, 1), cnn.Sequential(), block(3), join="concatenate"),
        cnn.Parallel(block(8), cnn.Residual(block(8), cnn.Dropout(0.3)), block(8)),
    ],
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("fuse", [True, False])
def test_gradients_are_those_of_a_network_whose_arrays_share_nothing(name, fuse):
    results = []
    for shares in (True, False):
        net = built(*NETWORKS[name](), fuse=fuse)
        net.context.arena.shares = shares
        random = np.random.default_rng(7)
        steps = []
        for batch in (5, 3):
            y = net.forward(random.standard_normal((3, 6, 6, batch)), training=True)
            dx = net.backward(random.standard_normal(y.shape))
            steps += [y.copy(), dx.copy(), net.flat.grad.copy()]
        results.append(steps)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_branches_keep_no_outputs_that_only_their_sum_reads():
    def kept(*layers):
        return [type(layer).__name__ for layer in built(*layers, shape=(4, 6, 6)).kept_outputs()]

    convolution, before = cnn.Conv2D(4, 1), (cnn.BatchNorm2D(), cnn.ReLU())
    assert kept(cnn.Residual(*before, convolution)) == ["ReLU", "Residual"]
    assert kept(cnn.Residual(cnn.Conv2D(4, 1), cnn.ReLU())) == ["ReLU", "Residual"]  # which reads it
    assert kept(cnn.Residual(cnn.Conv2D(4, 1), cnn.Dropout(), shortcut=cnn.Conv2D(4, 1))) == ["Residual"]
    branches = cnn.Conv2D(2, 1), cnn.Sequential(), cnn.Sequential(cnn.Conv2D(2, 1), cnn.BatchNorm2D())
    assert kept(cnn.Parallel(*branches, join="concatenate")) == ["Conv2D", "Parallel"]


class AddsItsInput(cnn.Sequential):
    def forward(self, x, training=False):
        return super().forward(x, training) + x

    def backward(self, dy, input_grad=True):
        return super().backward(dy) + dy


class ReturnsWhatItGot(cnn.Sequential):
    """Runs its layers for nothing."""

    def forward(self, x, training=False):
        super().forward(x, training)
        return x

    def backward(self, dy, input_grad=True):
        super().backward(dy)
        return dy


class HasItsGradientInItsOutput(cnn.Tanh):
    def backward(self, dy, input_grad=True):
        self._y[...] = dy * (1 - self._y * self._y)
        return self._y


class Gated(Container):
    """The input times what a layer makes of it, which is read again after that layer's backward pass."""

    def __init__(self):
        self.gate = cnn.Sequential(*three(), cnn.Sigmoid())

    @property
    def children(self):
        return {"gate": self.gate}

    def build(self, input_shape, context):
        super().build(input_shape, context)
        return self.build_child("gate", input_shape, context)

    def forward(self, x, training=False):
        scale = self.gate.forward(x, training)
        if training:
            self.x, self.scale = x, scale
        return x * scale

    def backward(self, dy, input_grad=True):
        return self.gate.backward(dy * self.x) + dy * self.scale


class KeepsNothing(cnn.Layer):
    def forward(self, x, training=False):
        return x

    def backward(self, dy, input_grad=True):
        return dy


def three():
    return cnn.Conv2D(6, 3, padding=1), cnn.Tanh(), cnn.Conv2D(4, 1)


@pytest.mark.parametrize(
    "own",
    [
        lambda: AddsItsInput(*three()),
        lambda: ReturnsWhatItGot(*three()),
        Gated,
        HasItsGradientInItsOutput,
        KeepsNothing,
    ],
    ids=["adds its input", "returns what it got", "gated", "has its gradient in its output", "keeps nothing"],
)
@pytest.mark.parametrize("following", [cnn.GELU, cnn.Dropout, lambda: cnn.Conv2D(4, 3, padding=1)])
def test_the_same_holds_for_a_layer_of_ones_own_that_reads_what_it_got_until_it_returns(own, following):
    def step(net, x, dy):
        found = [net.forward(x).copy(), net.forward(x, training=True).copy()]
        return [*found, net.backward(dy).copy(), net.flat.grad.copy()]

    x, dy = normal(3, 6, 6, 4), normal(4, 4)
    layers = cnn.Conv2D(4, 3, padding=1), own(), following(), own(), cnn.Conv2D(4, 1), cnn.GlobalAvgPool2D()
    net = built(cnn.Tanh(), *layers)
    found = step(net, x, dy)
    net.context.arena.shares = False
    for one, other in zip(found, step(net, x, dy), strict=True):
        np.testing.assert_array_equal(one, other)


def test_after_a_repeated_step_with_such_a_layer_all_memory_is_free_again():
    def taken(*own):
        net = built(*(block(4) for _ in range(4)), *own, cnn.Flatten(), cnn.Dense(2), shape=(4, 6, 6))
        data = cnn.data.Dataset(RANDOM.integers(0, 256, (32, 4, 6, 6), dtype=np.uint8), np.arange(32) % 2)

        class Predicts(cnn.Callback):
            def on_step(self, run):
                net.predict(data.images[:8], batch_size=8)

        cnn.fit(net, data, epochs=2, batch_size=4, callbacks=[Predicts()])
        return [chunk.size for chunk in net.context.arena._chunks]

    assert taken(KeepsNothing()) == taken()


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_planned_is_about_what_is_taken(name):
    net = built(*NETWORKS[name]())
    for planned, training in ((training_bytes(net, 64), True), (inference_bytes(net, 64), False)):
        net.context.arena.release()
        y = net.forward(normal(3, 6, 6, 64), training)
        if training:
            net.backward(normal(*y.shape))
        taken = sum(chunk.size for chunk in net.context.arena._chunks)
        assert planned <= taken <= 1.5 * planned
