"""Layer times: every layer of a real step is seen, and nothing of the network changes."""

import numpy as np
import pytest

import cnn
from cnn.inspection.timing import Spread, time_layers
from cnn.training.evaluation import make_loss


@pytest.fixture
def network(backend):
    network = cnn.Sequential(
        cnn.Flatten(), cnn.Sequential(cnn.Dense(6), cnn.ReLU()), cnn.Dense(3)
    )  # fmt: skip
    network.build((1, 4, 4), backend=backend)
    return network


@pytest.fixture
def batch(backend):
    random = np.random.default_rng(0)
    x = backend.asarray(random.standard_normal((1, 4, 4, 5)).astype(np.float32))
    return x, backend.asarray(random.integers(0, 3, 5))


def test_every_layer_is_timed_in_both_directions(network, batch):
    times = time_layers(network, make_loss(network, None), *batch, rounds=5)
    assert [time.layer for time in times] == ["0 Flatten", "1.0 Dense", "1.1 ReLU", "2 Dense"]
    assert all(0 < time.forward.low <= time.forward.median <= time.forward.high for time in times)
    assert all(time.backward.median > 0 for time in times[1:])


def test_a_layer_that_the_step_goes_round_has_no_time(network, batch):
    times = time_layers(network, make_loss(network, None), *batch, rounds=2)
    assert times[0].backward is None  # before the first weights


def test_weights_and_methods_stay_as_they_are(network, batch):
    before = network.state_dict()
    time_layers(network, make_loss(network, None), *batch, rounds=2)
    assert all(np.array_equal(before[name], value) for name, value in network.state_dict().items())
    assert not any({"forward", "backward"} & set(vars(layer)) for layer in network.walk())


def test_running_statistics_stay_too(backend, batch):
    net = cnn.Sequential(cnn.Flatten(), cnn.BatchNorm1D(), cnn.Dropout(), cnn.Dense(10))
    net.build(batch[0].shape[:-1], backend=backend)
    before = {name: np.array(backend.to_host(array)) for name, array in net.state.items()}
    time_layers(net, make_loss(net, None), *batch, rounds=2)
    for name, array in net.state.items():
        np.testing.assert_array_equal(backend.to_host(array), before[name], err_msg=name)


def test_a_spread_is_the_median_and_the_quartiles():
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(median=3, low=2, high=4)
    assert Spread.of([7]) == Spread(7, 7, 7)
