"""A step that the CPU repeats: the same calls, and the numbers of a network that runs call by call."""

import numpy as np
import pytest

import backends
import cnn
from backends import graph
from backends.cpu import threads

RANDOM = np.random.default_rng(0)
KERNELS = ["compiled", "portable", "signal"]


@pytest.fixture(params=KERNELS)
def kernels(request):
    if request.param == "compiled":
        pytest.importorskip("numba")
    return request.param


@pytest.fixture
def replayed(monkeypatch):
    """The recordings that were replayed, in their order."""
    found = []
    replay = graph.Recording.replay
    monkeypatch.setattr(graph.Recording, "replay", lambda self: (found.append(self), replay(self))[1])
    return found


def layers():
    return (
        cnn.Conv2D(4, 3, padding=1), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Conv2D(5, 3, untied_bias=True), cnn.Tanh(), cnn.AvgPool2D(2),
        cnn.Flatten(), cnn.Dense(8), cnn.ReLU(), cnn.Dense(3), cnn.Softmax(),
    )  # fmt: skip


def network(kernels, *given, fuse=True):
    made = cnn.Sequential(*given or layers())
    made.build((1, 12, 12), backend=backends.CpuBackend(kernels), dtype="float64", fuse=fuse)
    return made


def images(count):
    return RANDOM.standard_normal((1, 12, 12, count))


def gradient(count):
    return RANDOM.standard_normal((3, count))


class Step:
    """Forward and backward on fixed arrays, repeated by the device or call by call."""

    def __init__(self, net, count=7):
        self.net, self.x, self.dy = net, images(count), gradient(count)
        self.repeat = net.backend.graph(graph.recordable(lambda: self.run()))

    def run(self):
        self.y = self.net.forward(self.x, training=True)
        self.dx = self.net.backward(self.dy)

    def results(self):
        return self.y.copy(), self.dx.copy(), self.net.flat.grad.copy()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def both(kernels, *make):
    """The same step twice: one to be repeated, one to be run."""
    repeated, live = (Step(network(kernels, *(layer() for layer in make))) for _ in range(2))
    return repeated, live


def turn(repeated, live):
    """One step of both on new numbers; they must agree to the last bit."""
    repeated.x[...], repeated.dy[...] = images(repeated.x.shape[-1]), gradient(repeated.x.shape[-1])
    live.x[...], live.dy[...] = repeated.x, repeated.dy
    live.net.flat.value[...] = repeated.net.flat.value
    repeated.repeat()
    live.run()
    assert_same(repeated.results(), live.results())


def test_the_numbers_are_those_of_now(kernels, replayed):
    repeated, live = both(kernels)
    for factor in range(1, 6):
        repeated.net.flat.value[...] *= 1 + factor / 10
        turn(repeated, live)
    assert len(replayed) >= 3  # all but the steps in which buffers grew


class Counted(cnn.Layer):
    """Plain xp with a counter in Python: it cannot be recorded."""

    def __init__(self):
        self.count = 0

    def forward(self, x, training=False):
        self.count += training
        return x * self.count

    def backward(self, dy, input_grad=True):
        return dy * self.count


MIDDLE = (
    lambda: cnn.Conv2D(4, 3), cnn.ReLU, lambda: cnn.MaxPool2D(2), Counted,
    cnn.Flatten, lambda: cnn.Dense(8), cnn.ReLU, lambda: cnn.Dense(3),
)  # fmt: skip


def test_a_layer_in_plain_xp_is_called_again_and_the_rest_is_still_recorded(kernels, replayed, monkeypatch):
    repeated, live = both(kernels, *MIDDLE)
    for _ in range(5):
        turn(repeated, live)
    assert repeated.net.layers[3].count == live.net.layers[3].count == 5
    assert len(replayed) >= 3
    monkeypatch.setattr(cnn.Conv2D, "forward", None)  # nothing of the library is asked again
    monkeypatch.setattr(type(repeated.net.passes[0]), "forward", None)
    repeated.repeat()
    assert repeated.net.layers[3].count == 6


def test_a_function_of_ones_own_is_called_again():
    calls = []

    def f(x):
        calls.append(1)
        return x * len(calls)

    net = network("portable", cnn.Flatten(), cnn.Dense(3), cnn.Activation(f, np.ones_like))
    step = Step(net)
    for number in range(1, 6):
        step.repeat()
        np.testing.assert_allclose(step.y, number * step.net.forward(step.x) / len(calls))
        calls.pop()


def test_a_class_derived_from_a_layer_is_called_again(replayed):
    class Growing(cnn.Dense):
        factor = 1

        def forward(self, x, training=False):
            return super().forward(x, training) * self.factor

    net = network("portable", cnn.Flatten(), Growing(3))
    step = Step(net)
    for factor in range(1, 5):
        net.layers[1].factor = factor
        step.repeat()
        np.testing.assert_array_equal(step.y, net.layers[1].forward(step.x.reshape(144, -1)))
    assert replayed


def test_a_class_that_adds_a_constructor_alone_is_recorded():
    class Wide(cnn.Dense):
        def __init__(self):
            super().__init__(64)

    assert Wide().recordable
    assert not cnn.Activation(np.sin, np.cos).recordable


def test_a_larger_batch_in_between_moves_buffers_and_changes_nothing(kernels):
    repeated, live = both(kernels)
    for count in (2, 60, 9):
        turn(repeated, live)
        turn(repeated, live)
        repeated.net.forward(images(count))
        turn(repeated, live)


def test_another_number_of_threads_is_a_reason_to_record_again(replayed):
    pytest.importorskip("numba")
    if threads.available_cores() == 1:
        pytest.skip("there is one core")
    step = Step(network("compiled"))
    for _ in range(4):
        step.repeat()
    before = len(replayed)
    with threads.limit_threads(1 if threads.count() > 1 else threads.available_cores()):
        step.repeat()
    assert len(replayed) == before


def test_a_step_that_fails_is_not_repeated_in_part():
    step = Step(network("portable"))
    step.repeat()
    step.repeat()
    step.repeat = step.net.backend.graph(graph.recordable(lambda: step.run()))
    step.dy = gradient(8)  # of another batch
    for _ in range(2):
        with pytest.raises(cnn.ShapeError):
            step.repeat()
    step.dy = gradient(7)
    step.repeat()


def test_layers_that_are_watched_run_one_by_one():
    net = network("portable")
    seen = []
    with net.unfused():
        forward = net.layers[1].forward
        net.layers[1].forward = lambda *given: (seen.append(1), forward(*given))[1]
        net.forward(images(4), training=True)
    assert seen


@pytest.mark.parametrize("graph", [True, False])
def test_training_with_and_without_a_graph_ends_with_the_same_bits(kernels, graph):
    data = cnn.data.Dataset(RANDOM.integers(0, 256, (40, 1, 12, 12), dtype=np.uint8), np.arange(40) % 3)
    results = []
    for repeated in (graph, not graph):
        net = network(kernels)
        cnn.fit(net, data, validation=data, epochs=2, batch_size=6, graph=repeated, callbacks=[])
        results.append((net.flat.value, net.predict(data.images)))
    assert_same(*results)


def test_fused_or_not_the_numbers_are_the_same(kernels):
    fused, plain = Step(network(kernels)), Step(network(kernels, fuse=False))
    assert len(fused.net.passes) < len(plain.net.passes) == len(plain.net.layers)
    plain.x, plain.dy = fused.x, fused.dy
    fused.run(), plain.run()
    for a, b in zip(fused.results(), plain.results(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
