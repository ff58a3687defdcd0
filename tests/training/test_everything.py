"""A run with every feature on resumes bit for bit, and gives the same on every way to compute it."""

from functools import cache

import numpy as np
import pytest
from helpers import host_cuda
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.training.groups import is_vector

RANDOM = np.random.default_rng(0)
DATA = cnn.data.Dataset(RANDOM.integers(0, 256, (50, 3, 8, 8), dtype=np.uint8), RANDOM.integers(0, 4, 50))
DEVICES = {
    "compiled": lambda: backends.get("cpu", "compiled"),
    "portable": lambda: backends.get("cpu", "portable"),
    "graph": lambda: StandInBackend("compiled"),
}
EACH = ["compiled", "portable", pytest.param("graph", marks=host_cuda.needed)]
SCHEDULES = {
    "plateau": lambda: cnn.schedules.Plateau(warmup=0.2, factor=0.5, patience=0, threshold=0.5),
    "one cycle": cnn.schedules.OneCycle,
    "chain": lambda: cnn.schedules.Chain(
        parts=[(0.5, cnn.schedules.Cosine(restarts=1)), (0.5, cnn.schedules.Exponential())]
    ),
}


def network(device):
    def convolution(channels):
        return cnn.Conv2D(channels, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU()

    net = cnn.Sequential(
        *convolution(4), cnn.Residual(*convolution(4), cnn.Conv2D(4, 3, padding=1)), cnn.Dropout2D(0.1),
        cnn.MaxPool2D(2), cnn.Parallel(cnn.Conv2D(3, 1), cnn.GELU(), join="concatenate"), cnn.GroupNorm(1),
        cnn.GlobalAvgPool2D(), cnn.Dropout(0.2), cnn.Dense(4),
    )  # fmt: skip
    net.build((3, 8, 8), backend=device)
    net.freeze("0.weight")
    return net


def trained(device, schedule="plateau", **options):
    net = network(DEVICES[device]())
    groups = [cnn.Group(is_vector, weight_decay=0), cnn.Group("*.weight", rate=0.5)]
    optimizer = cnn.EMA(
        cnn.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-2, groups=groups), decay=0.9
    )
    options = {
        "validation": DATA, "epochs": 4, "batch_size": 16, "accumulate": 3, "seed": 3, "callbacks": [],
        "transforms": [cnn.ClipNorm(1), cnn.ClipValue(0.1)], "normalize": True,
        "schedule": SCHEDULES[schedule](), "loss": cnn.CrossEntropy(label_smoothing=0.1),
        "augment": [cnn.augment.Shift(1), cnn.augment.Flip(), cnn.augment.Rotate(10), cnn.augment.Mixup(0.4)],
    } | options  # fmt: skip
    history = cnn.fit(net, DATA, optimizer=optimizer, **options)
    return net.state_dict(), [{k: v for k, v in line.items() if "second" not in k} for line in history]


@cache
def whole(device, schedule="plateau"):
    """A run from its beginning to its end, with graphs if there are any."""
    return trained(device, schedule)


def require_same(one, other):
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, other[0][name], err_msg=name)
    assert one[1] == other[1]


class StopIn(cnn.Callback):
    """Ends a run in the middle of an epoch."""

    def __init__(self, *position):
        self.position = position

    def on_step(self, run):
        run.stop = (run.epoch, run.step) == self.position


def require_exact_resumption(device, schedule, path):
    trained(device, schedule, callbacks=[cnn.Checkpoint(path), StopIn(3, 2)])
    require_same(whole(device, schedule), trained(device, schedule, resume=path))


@pytest.mark.parametrize("device", EACH)
def test_it_resumes_bit_for_bit(device, tmp_path):
    require_exact_resumption(device, "plateau", tmp_path / "c.safetensors")


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "plateau"])
def test_it_resumes_bit_for_bit_with_every_schedule(schedule, tmp_path):
    require_exact_resumption("compiled", schedule, tmp_path / "c.safetensors")


@pytest.mark.parametrize("device", EACH)
def test_a_recorded_step_does_what_a_step_does(device):
    require_same(whole(device), trained(device, graph=False))


@pytest.mark.parametrize("device", EACH)
def test_streamed_images_are_the_same(device):
    require_same(whole(device), trained(device, stream=True))


def test_the_learning_rate_has_fallen_on_the_plateau():
    _, history = trained("compiled", epochs=6)
    rates = [line["learning_rate"] for line in history]
    assert rates[-1] < 0.3 * rates[1]


def test_what_is_frozen_stays():
    before = network(backends.get("cpu")).state_dict()
    after, _ = whole("compiled")
    np.testing.assert_array_equal(before["0.weight"], after["0.weight"])
    assert not np.array_equal(before["3.0.weight"], after["3.0.weight"])
