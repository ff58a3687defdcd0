"""A steady step is replayed; whatever moves, the numbers are those of a network that runs live."""

import numpy as np
import pytest

import backends
import cnn
from backends import recording
from backends.cpu import threads

RANDOM = np.random.default_rng(0)


def network(*layers, fuse=True, kernels="compiled", seed=0):
    if kernels == "compiled":
        pytest.importorskip("numba")
    made = cnn.Sequential(*layers)
    made.build((1, 12, 12), backend=backends.CpuBackend(kernels), seed=seed, dtype="float64", fuse=fuse)
    return made


def layers():
    return (
        cnn.Conv2D(4, 3, padding=1), cnn.ReLU(), cnn.MaxPool2D(2),
        cnn.Conv2D(5, 3, untied_bias=True), cnn.Tanh(), cnn.AvgPool2D(2),
        cnn.Flatten(), cnn.Dense(8), cnn.ReLU(), cnn.Dense(3), cnn.Softmax(),
    )  # fmt: skip


def images(count):
    return RANDOM.standard_normal((1, 12, 12, count))


def gradient(count):
    return RANDOM.standard_normal((3, count))


def step(net, x, dy):
    """Copies of the output, the input's gradient and the parameters' gradients."""
    y = net.forward(x, training=True).copy()
    dx = net.backward(dy).copy()
    return y, dx, net.flat.grad.copy()


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.fixture
def counted(monkeypatch):
    """How many recordings were replayed."""
    replayed = []
    replay = recording.Recording.replay
    monkeypatch.setattr(recording.Recording, "replay", lambda self: (replayed.append(self), replay(self))[1])
    return replayed


def test_the_same_arrays_are_replayed_with_what_is_in_them_now(counted):
    net, live = network(*layers()), network(*layers(), kernels="portable")
    x, dy = images(7), gradient(7)
    for turn in range(4):
        x[...], dy[...] = images(7), gradient(7)
        net.flat.value[...] = live.flat.value * (1 + turn)
        live.flat.value[...] = net.flat.value
        assert_same(step(net, x, dy), step(live, x, dy))
    assert len(counted) >= 2 * 2  # all but the steps in which buffers grew


def test_other_arrays_are_not(counted):
    net, live = network(*layers()), network(*layers(), kernels="portable")
    for count in (7, 7, 3, 7, 40, 7):
        x, dy = images(count), gradient(count)
        assert_same(step(net, x, dy), step(live, x, dy))
    assert not counted


def test_a_gradient_belongs_to_the_latest_input_though_it_lies_in_the_same_place():
    net, live = network(*layers()), network(*layers(), kernels="portable")
    dy = gradient(7)
    for _ in range(5):
        x = images(7)  # a new array each time
        assert_same(step(net, x, dy), step(live, x, dy))


def test_an_input_that_is_not_contiguous_is_looked_at_anew():
    net, live = network(*layers()), network(*layers(), kernels="portable")
    batch = np.empty((6, 1, 12, 12))
    x = np.moveaxis(batch, 0, -1)
    for _ in range(4):
        batch[...] = RANDOM.standard_normal(batch.shape)
        np.testing.assert_allclose(net.forward(x), live.forward(x), rtol=1e-10)


def test_layers_watched_in_between_leave_nothing_behind():
    net, live = network(*layers()), network(*layers(), kernels="portable")
    x, dy, few = images(7), gradient(7), images(3)
    for _ in range(3):
        assert_same(step(net, x, dy), step(live, x, dy))
        with net.unfused():
            net.forward(few, training=True)
        net.forward(x, training=True)
        other = gradient(7)
        live.forward(x, training=True)
        np.testing.assert_allclose(net.backward(other), live.backward(other), rtol=1e-9, atol=1e-12)


def test_an_evaluation_in_between_changes_nothing(counted):
    net, live = network(*layers()), network(*layers(), kernels="portable")
    x, dy = images(7), gradient(7)
    for count in (2, 2, 60, 60, 2):
        net.forward(x, training=True)
        other = images(count)
        np.testing.assert_allclose(net.forward(other), live.forward(other), rtol=1e-10)
        live.forward(x, training=True)
        np.testing.assert_allclose(net.backward(dy), live.backward(dy), rtol=1e-9, atol=1e-12)
    assert counted


def test_a_layer_that_does_not_say_so_is_never_replayed(counted):
    class Doubled(cnn.Dense):
        def forward(self, x, training=False):
            return super().forward(x, training) * 2

    net = network(cnn.Flatten(), Doubled(3))
    assert not net.replayable
    x = images(4)
    first = net.forward(x, training=True).copy()
    x *= 3
    np.testing.assert_allclose(net.forward(x, training=True), 3 * first)
    assert not counted


def test_what_goes_the_portable_way_is_right_too():
    net = network(cnn.Conv2D(3, 3, stride=2), cnn.Flatten(), cnn.Dense(3))  # its input's gradient is portable
    live = network(cnn.Conv2D(3, 3, stride=2), cnn.Flatten(), cnn.Dense(3), kernels="portable")
    x, dy = images(5), gradient(5)
    for _ in range(4):
        x[...], dy[...] = images(5), gradient(5)
        assert_same(step(net, x, dy), step(live, x, dy))


def test_other_threads_are_a_reason_to_record_again(counted):
    pytest.importorskip("threadpoolctl")
    net = network(*layers())
    x = images(4)
    for _ in range(3):
        net.forward(x)
    replays = len(counted)
    with backends.limit_threads(1 if threads.count() > 1 else threads.available_cores()):
        net.forward(x)
    assert len(counted) == replays or threads.available_cores() == 1


def test_layers_that_are_watched_run_one_by_one(counted):
    net = network(*layers())
    x = images(4)
    for _ in range(3):
        net.forward(x, training=True)
    replays, seen = len(counted), []
    with net.unfused():
        forward = net.layers[1].forward
        net.layers[1].forward = lambda *given: (seen.append(1), forward(*given))[1]
        net.forward(x, training=True)
    assert seen
    assert len(counted) == replays


def test_fused_or_not_the_numbers_are_the_same():
    fused, plain = network(*layers()), network(*layers(), fuse=False)
    assert len(fused.passes) < len(plain.passes) == len(plain.layers)
    x, dy = images(33), gradient(33)
    found, expected = step(fused, x, dy), step(plain, x, dy)
    np.testing.assert_array_equal(found[0], expected[0])  # to the last bit
    assert_same(found, expected)
