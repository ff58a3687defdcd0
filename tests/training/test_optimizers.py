"""Optimizers and schedules: PyTorch's trajectories, and what happens in the long run."""

import numpy as np
import pytest

import cnn
from backends.kernels.updates import TINY
from cnn.training import schedules
from cnn.training.preparation import learning_rates

GRADIENTS = [[0.5, -1, 2], [-0.25, 0.5, 1], [1.5, 0, -3], [0.1, 0.2, 0.3]]

# where torch.optim's, PyTorch 2.13.0 in float64, end from [1, -2, 3] after these gradients
TRAJECTORIES = [
    (lambda: cnn.SGD(0.1), [0.815, -1.97, 2.97]),
    (lambda: cnn.SGD(0.1, momentum=0.9), [0.6008, -1.8116, 2.5812]),
    (
        lambda: cnn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        [0.44491355376633707, -1.777744107532674, 2.5607732591606163],
    ),
    (
        lambda: cnn.Adam(0.1, weight_decay=0.01),
        [0.7444431248605617, -1.8381532782582783, 2.8139514573492987],
    ),
    (
        lambda: cnn.AdamW(0.1, weight_decay=0.01),
        [0.7443004696007227, -1.8388107498894672, 2.8055207937523123],
    ),
]


def one_vector(device, dtype="float64"):
    """A network whose only parameter is a vector of three."""
    network = cnn.Sequential(cnn.Dense(1, bias=False))
    network.build((3,), backend=device, dtype=dtype)
    network.load_state_dict({"0.weight": np.array([[1, -2, 3.0]])})
    return network


def follow(network, optimizer, gradients, rate=None):
    device = network.backend
    optimizer.build(network)
    rate = device.asarray(np.array([rate or optimizer.learning_rate], dtype=network.dtype))
    for gradient in gradients:
        device.asarray(np.array([gradient]), out=network.parameters["0.weight"].grad)
        optimizer.step(rate)
    return device.to_host(network.parameters["0.weight"].value)[0]


@pytest.mark.parametrize(("make", "end"), TRAJECTORIES)
def test_it_goes_where_pytorchs_goes(backend, make, end):
    np.testing.assert_allclose(follow(one_vector(backend), make(), GRADIENTS), end, rtol=1e-12)


@pytest.mark.parametrize(("make", "end"), TRAJECTORIES)
def test_float32_stays_float32(backend, make, end):
    network = one_vector(backend, "float32")
    np.testing.assert_allclose(follow(network, make(), GRADIENTS), end, rtol=1e-5)
    assert network.flat.value.dtype == np.float32


@pytest.mark.parametrize(("make", "end"), TRAJECTORIES)
def test_used_again_on_the_same_network_it_goes_on(make, end):
    network, optimizer = one_vector("cpu"), make()
    follow(network, optimizer, GRADIENTS[:2])
    np.testing.assert_allclose(follow(network, optimizer, GRADIENTS[2:]), end, rtol=1e-12)


@pytest.mark.parametrize(("make", "end"), TRAJECTORIES)
def test_on_another_network_it_starts_again(make, end):
    optimizer = make()
    follow(one_vector("cpu"), optimizer, GRADIENTS)
    np.testing.assert_allclose(follow(one_vector("cpu"), optimizer, GRADIENTS), end, rtol=1e-12)


def test_no_state_of_rmsprop_becomes_subnormal(backend):
    optimizer = cnn.RMSprop(0.1, alpha=0.5, momentum=0.5, centered=True)
    follow(one_vector(backend, "float32"), optimizer, [[1, 1, 1]] + [[0, 0, 0]] * 120)
    assert {name: backend.to_host(state).any() for name, state in optimizer.state.items()} == {
        "square": False, "mean": False, "velocity": False,
    }  # fmt: skip


def test_state_never_becomes_subnormal(backend):
    optimizer = cnn.SGD(0.1, momentum=0.5)
    network = one_vector(backend, "float32")
    follow(network, optimizer, [[1, 1, 1]] + [[0, 0, 0]] * 120)  # 2 ** -120 is about 1e-36
    assert not backend.to_host(optimizer.state["velocity"]).any()
    follow(network, optimizer, [[1, 1, 1]] + [[0, 0, 0]] * 90)  # 2 ** -90 is about 8e-28
    velocity = backend.to_host(optimizer.state["velocity"])[:3]
    assert (np.abs(velocity) > TINY).all()


def test_nan_is_not_hidden_by_that():
    optimizer = cnn.SGD(0.1, momentum=0.5)
    assert np.isnan(follow(one_vector("cpu"), optimizer, [[np.nan, 1, 1]])[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cnn.SGD(-1), "learning_rate is -1, expected a number of at least 0"),
        (lambda: cnn.SGD(float("nan")), "learning_rate is nan"),
        (lambda: cnn.SGD(0.1, momentum=1), "momentum is 1, expected a number of at least 0 and below 1"),
        (lambda: cnn.SGD(0.1, nesterov=True), "nesterov without momentum"),
        (lambda: cnn.Adam(betas=(0.9, 2)), r"betas\[1\] is 2"),
        (lambda: cnn.AdamW(weight_decay=-0.1), "weight_decay is -0.1"),
        (lambda: cnn.Muon(1e-200), "learning_rate is 1e-200 and other_rate is 0.05, expected"),
        (lambda: schedules.Linear(warmup=-1), "warmup is -1, expected a number of at least 0"),
        (
            lambda: schedules.Linear(warmup=1.5),
            r"warmup is 1.5, expected a share of the run \(below 1\) or a whole number of steps",
        ),
        (lambda: schedules.Linear(warmup=3)(0.5), r"a warm-up of 3 steps .* call over\(steps\) first"),
        (lambda: schedules.Step(every=0), "every is 0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(cnn.ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (schedules.Constant(), {0: 1, 0.5: 1, 1: 1}),
        (schedules.Step(every=0.25, factor=0.5), {0: 1, 0.2: 1, 0.3: 0.5, 0.6: 0.25, 0.99: 0.125}),
        (schedules.Linear(), {0: 1, 0.25: 0.75, 1: 0}),
        (schedules.Linear(end=0.2), {0: 1, 0.5: 0.6, 1: 0.2}),
        (schedules.Cosine(), {0: 1, 0.5: 0.5, 1: 0}),
        (schedules.Cosine(end=0.5), {0: 1, 0.5: 0.75, 1: 0.5}),
        (schedules.Linear(warmup=0.2), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1: 0}),
        (schedules.Constant(warmup=0.5), {0.25: 0.5, 0.75: 1}),
    ],
)
def test_schedules(schedule, factors):
    for progress, factor in factors.items():
        assert schedule(progress) == pytest.approx(factor), progress


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.OneCycle(warmup=0.2, lowest_momentum=0.5),
        schedules.Chain(warmup=0.2, parts=[(1, schedules.OneCycle(lowest_momentum=0.5))]),
    ],
)
def test_the_momentum_does_not_fall_to_0_in_a_warm_up(schedule):
    for momentum in (schedule.momentum, schedule.momentum.over(10)):
        assert [momentum(progress) for progress in (0, 0.1, 0.2, 0.44, 1)] == pytest.approx([1, 1, 1, 0.5, 1])


def test_no_step_is_wasted_at_either_end():
    rates = [learning_rates(2.0, schedules.Linear(warmup=0.5), epoch, 2, 2) for epoch in range(2)]
    np.testing.assert_allclose(rates, [[0.5, 1.5], [1.5, 0.5]])


def test_a_warm_up_counts_steps_from_1_on_and_is_a_share_of_the_run_below():
    schedule = schedules.Constant(warmup=2)
    np.testing.assert_allclose(learning_rates(1.0, schedule, 0, 1, 10)[:4], [0.25, 0.75, 1, 1])
    np.testing.assert_allclose(learning_rates(1.0, schedule, 0, 5, 20)[:4], [0.25, 0.75, 1, 1])
    np.testing.assert_allclose(
        learning_rates(1.0, schedules.Constant(warmup=0.2), 0, 1, 10)[:3], [0.25, 0.75, 1]
    )


def test_a_warm_up_in_steps_takes_at_most_a_fifth_of_the_run():
    rates = learning_rates(1.0, schedules.Linear(warmup=100), 0, 2, 5)
    np.testing.assert_array_equal(rates, learning_rates(1.0, schedules.Linear(warmup=0.2), 0, 2, 5))


@pytest.mark.parametrize("make", [lambda: cnn.SGD(0.1, momentum=0.9), cnn.Adam])
def test_where_there_was_no_memory_for_its_state_it_can_be_used_again(make, monkeypatch):
    def full(*arguments):
        raise MemoryError

    optimizer, network = make(), cnn.Sequential(cnn.Dense(2))
    network.build((3,), backend="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(np, "zeros_like", full)
        with pytest.raises(MemoryError):
            optimizer.build(network)
    optimizer.build(network)
    optimizer.step(np.ones(1, np.float32))


@pytest.mark.parametrize(
    "use",
    [
        lambda optimizer: optimizer.state_dict(),
        lambda optimizer: optimizer.load_state_dict({}),
        lambda optimizer: optimizer.step(np.ones(1, np.float32)),
    ],
)
@pytest.mark.parametrize("optimizer", [cnn.SGD(0.1), cnn.EMA(cnn.SGD(0.1))])
def test_an_optimizer_that_is_not_built_says_so(optimizer, use):
    with pytest.raises(cnn.ArgumentError, match=r"is not built yet: call optimizer.build\(net\)"):
        use(optimizer)


class Change(cnn.Callback):
    """Changes the optimizer after each epoch."""

    def __init__(self, change):
        self.change = change

    def on_epoch(self, run, record):
        self.change(run.training.optimizer, run.epoch)


def trained(optimizer, change, **options):
    network = cnn.Sequential(cnn.Flatten(), cnn.Dense(4), cnn.Dense(3))
    network.build((1, 2, 2), backend="cpu")
    random = np.random.default_rng(0)
    data = cnn.data.Dataset(random.random((16, 1, 2, 2), "float32"), random.integers(0, 3, 16))
    options = {"epochs": 4, "batch_size": 8, "callbacks": [Change(change)]} | options
    cnn.fit(network, data, optimizer=optimizer, **options)
    return network.state_dict()


def lower_rate(optimizer, epoch):
    optimizer.learning_rate /= 10


def no_momentum_for_an_epoch(optimizer, epoch):
    optimizer.momentum = 0.0 if epoch == 1 else 0.9


@pytest.mark.parametrize("schedule", [schedules.Constant(), schedules.OneCycle()])
@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: cnn.Muon(0.02), lower_rate),
        (lambda: cnn.Muon(0.02), no_momentum_for_an_epoch),
        (lambda: cnn.SGD(0.1, momentum=0.9), no_momentum_for_an_epoch),
        (lambda: cnn.RMSprop(0.01, momentum=0.9), no_momentum_for_an_epoch),
    ],
)
def test_what_is_changed_between_epochs_holds_in_recorded_steps_too(make, change, schedule):
    recorded, plain = (trained(make(), change, schedule=schedule, graph=graph) for graph in (True, False))
    for name, value in recorded.items():
        np.testing.assert_array_equal(value, plain[name], err_msg=name)


@pytest.mark.parametrize("make", [lambda: cnn.SGD(0.1), lambda: cnn.RMSprop(0.01)])
def test_a_momentum_that_there_is_no_room_for_is_refused(make):
    with pytest.raises(cnn.ArgumentError, match=r"made without one: make it with momentum=0.9"):
        trained(make(), lambda optimizer, epoch: setattr(optimizer, "momentum", 0.9))


def test_epochs_without_a_number_do_not_improve():
    history = [{"loss": value} for value in (np.nan, np.inf, 1.0, np.nan, 0.5)]
    schedule = schedules.Plateau(factor=0.5, patience=0, metric="loss")
    assert [schedule.reduction(history[:epochs]) for epochs in range(6)] == [1, 0.5, 0.25, 0.25, 0.125, 0.125]
