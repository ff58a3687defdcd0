"""The number of processes does not change a bit of what is trained; the number of shards determines it."""

import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from math import isfinite
from pathlib import Path

import numpy as np
import pytest
from helpers.standin import StandInBackend
from helpers.together import needed, together

import backends
import cnn
from cnn.data.sharding import Sharding
from cnn.training.checkpoints import SavedTraining

pytestmark = needed

SHARDS = 4
BATCH, IMAGES = 26, 55  # shards of 6 and 7 images, and a last batch of 3: shard 0 of it is empty
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 4, IMAGES)
GREY = RANDOM.integers(0, 256, (IMAGES, 1, 28, 28), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (IMAGES, 3, 8, 8), dtype=np.uint8)


class Halve(cnn.layers.Layer):
    """A layer in plain xp, which is called as Python in each step."""

    def forward(self, x, training=False):
        return self.backend.xp.multiply(x, 0.5, out=self.output(x, training))

    def backward(self, dy, input_grad=True):
        return self.backend.xp.multiply(dy, 0.5, out=self.input_gradient(dy)) if input_grad else None


def small():
    return cnn.Sequential(
        cnn.Conv2D(4, 3, padding=1), cnn.ReLU(), cnn.MaxPool2D(2), cnn.Flatten(), cnn.Dropout(0.3),
        cnn.Dense(4),
    )  # fmt: skip


def with_a_layer_of_its_own():
    return cnn.Sequential(cnn.Conv2D(4, 3, padding=1), Halve(), cnn.ReLU(), cnn.Flatten(), cnn.Dense(4))


def resnet():
    def convolution():
        return cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D()

    return cnn.Sequential(
        *convolution(), cnn.ReLU(), cnn.Residual(*convolution(), cnn.ReLU(), *convolution()), cnn.ReLU(),
        cnn.Dropout2D(0.1), cnn.GlobalAvgPool2D(), cnn.Dropout(0.2), cnn.Dense(4),
    )  # fmt: skip


def colour(folder):
    return cnn.data.Dataset(COLOUR, LABELS)


def grey(folder):
    return cnn.data.Dataset(GREY, LABELS)


def weighted(folder):
    return cnn.data.Dataset(COLOUR, LABELS, weights=np.linspace(0, 2, IMAGES))


def mapped(folder):
    np.save(folder / "images.npy", COLOUR)
    return cnn.data.Dataset(np.load(folder / "images.npy", mmap_mode="r"), LABELS)


def augmentations():
    return [cnn.augment.Shift(1), cnn.augment.Flip(), cnn.augment.Mixup(0.4)]


def momentum():
    return cnn.SGD(0.05, momentum=0.9)


@dataclass(frozen=True)
class Case:
    """A training run: a network, its data, and what ``fit`` gets besides."""

    network: Callable
    options: Callable = dict  # -> options of its own; an optimizer has state
    data: Callable = colour
    device: Callable = lambda: backends.get("cpu", threads=1)
    dtype: str = "float32"
    shards: int = SHARDS


CASES = {
    "LeNet-5 with momentum": Case(
        lambda: cnn.models.lenet5(4),
        lambda: {
            "optimizer": momentum(),
            "metrics": [
                cnn.metrics.TopK(2),
                cnn.metrics.Confusion(),
                cnn.metrics.CalibrationError(),
            ],
        },
        grey,
    ),
    "a ResNet with all that is random": Case(
        resnet,
        lambda: {
            "optimizer": cnn.EMA(momentum(), decay=0.9),
            "loss": cnn.CrossEntropy(label_smoothing=0.1),
            "augment": augmentations(),
            "normalize": True,
        },
    ),
    "batches in parts": Case(resnet, lambda: {"optimizer": cnn.AdamW(0.01), "accumulate": 3}),
    "weighted classes": Case(
        small,
        lambda: {
            "optimizer": momentum(),
            "loss": cnn.CrossEntropy(class_weights=(1, 2, 0.5, 3)),
            "accumulate": 2,
        },
    ),
    "weighted images": Case(small, lambda: {"optimizer": momentum()}, weighted),
    "streamed from a mapped file": Case(
        resnet,
        lambda: {"optimizer": momentum(), "stream": True, "augment": augmentations()},
        mapped,
    ),
    "a clipped gradient": Case(
        small, lambda: {"optimizer": momentum(), "transforms": [cnn.ClipNorm(0.1), cnn.ClipValue(0.02)]}
    ),
    "a schedule that looks at the loss": Case(
        small,
        lambda: {
            "optimizer": momentum(),
            "schedule": cnn.schedules.Plateau(factor=0.5, patience=0, threshold=0.9),
        },
    ),
    "a momentum that changes": Case(
        small, lambda: {"optimizer": momentum(), "schedule": cnn.schedules.OneCycle()}, dtype="float64"
    ),
    "float64": Case(resnet, lambda: {"optimizer": cnn.Adam(0.01)}, dtype="float64"),
    "portable kernels": Case(
        resnet,
        lambda: {"optimizer": momentum()},
        device=lambda: backends.get("cpu", "portable", threads=1),
    ),
    "a layer of one's own": Case(with_a_layer_of_its_own, lambda: {"optimizer": momentum()}),
    "arrays that go through the host": Case(resnet, lambda: {"optimizer": momentum()}, device=StandInBackend),
    "batches of all images": Case(small, lambda: {"optimizer": momentum(), "batch_size": 128}),
    "seven shards": Case(resnet, lambda: {"optimizer": momentum()}, shards=7),
    "five shards, streamed": Case(
        resnet, lambda: {"optimizer": momentum(), "batch_size": 8, "stream": True}, shards=5
    ),
}
RESUMED = [
    "a ResNet with all that is random",
    "batches in parts",
    "weighted classes",
    "streamed from a mapped file",
]
STOPS = {4: (1, 1), 3: (2, 1), 2: (3, 1)}  # in which epoch, and after which step, so many processes stop


class Shares(cnn.Callback):
    """Notes the shards that this process has computed."""

    everywhere = True

    def __init__(self):
        self.found = set()

    def on_step(self, run):
        self.found |= {shard.number for shard in run.training.feed.shards}


class StopAfter(cnn.Callback):
    """Ends a run after a step; with several processes, after the next one."""

    def __init__(self, position):
        self.position = position

    def on_step(self, run):
        run.stop = (run.epoch, run.step) == self.position


def train(name, group, folder, callbacks=(), **more):
    """Train, and write a checkpoint."""
    case, net = CASES[name], CASES[name].network()
    data = case.data(folder)
    net.build(data.shape, backend=case.device(), dtype=case.dtype)
    options = {"epochs": 3, "batch_size": BATCH, "seed": 5, **case.options(), **more}
    validation = cnn.data.Dataset(data.images[:30], data.labels[:30], 4)
    callbacks = [cnn.Checkpoint(folder / f"{name}.safetensors"), *callbacks]
    history = cnn.fit(net, data, validation, callbacks=callbacks, processes=group, **options)
    return digests(net.state_dict()), learned(history)


def digests(arrays):
    return {name: hashlib.sha256(array.tobytes()).hexdigest()[:12] for name, array in arrays.items()}


def learned(history):
    """What a history tells besides the time that it took."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in history]


def trained(name, processes, group, folder, **more):
    """What is left of a training run, as the processes of the group have it."""
    shares = Shares()
    result = train(name, processes, folder, [shares], **more)
    path = folder / f"{name}.safetensors"
    return {
        "checkpoint": group.first(lambda: digests(SavedTraining.read(path).arrays)),
        "everyone": group.gather(result),
        "shards": [sorted(found) for found in group.gather(shares.found)],
    }


def job(common):
    """Train each case; resume what one process more has stopped, to the end and to a stop."""
    group, found = cnn.distributed.communicator(), {}
    with tempfile.TemporaryDirectory() as own:
        folder, common = Path(own), Path(common)
        for name, case in CASES.items():
            group.shards = case.shards
            found[name] = trained(name, group, group, folder)
        group.shards = None  # as the run began with
        processes = group if group.size > 1 else None
        for name in RESUMED:
            stopped = common / f"{name}, stopped by {group.size + 1}.safetensors"
            resume = stopped if group.size < max(STOPS) else None
            if resume:
                found[f"{name}, resumed"] = trained(name, processes, group, folder, resume=resume)
            if group.size in STOPS:
                train(name, group, folder, [StopAfter(STOPS[group.size])], resume=resume)
            if group.is_first and group.size in STOPS:
                (folder / f"{name}.safetensors").rename(
                    common / f"{name}, stopped by {group.size}.safetensors"
                )
        found["has MPI"] = "mpi4py" in sys.modules
    return found


@cache
def results():
    """What 4, 3, 2 and 1 processes give; the later ones resume what the earlier ones have stopped."""
    with tempfile.TemporaryDirectory() as common:
        return {processes: together(processes, job, common) for processes in (4, 3, 2, 1)}


def test_shards_differ_in_size_and_one_of_the_last_batch_is_empty():
    sharding = Sharding.of(SHARDS)
    assert [size for *_, size in sharding.cut(BATCH)] == [6, 7, 6, 7]
    assert [size for *_, size in sharding.cut(IMAGES % BATCH)] == [0, 1, 1, 1]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
class TestAnyNumberOfProcesses:
    def test_computes_each_shard_once(self, processes, name):
        shards = results()[processes][name]["shards"]
        assert len(shards) == processes
        assert all(shards)
        assert list(chain(*shards)) == list(range(CASES[name].shards))

    def test_leaves_the_same_weights_statistics_state_and_sums(self, processes, name):
        assert results()[processes][name]["checkpoint"] == results()[4][name]["checkpoint"]

    def test_ends_with_the_same_weights_and_history_in_all_of_them(self, processes, name):
        everyone = results()[processes][name]["everyone"]
        assert everyone == [results()[4][name]["everyone"][0]] * processes


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_run_that_more_processes_began_is_resumed_within_an_epoch(processes, name):
    undisturbed, resumed = results()[4][name], results()[processes][f"{name}, resumed"]
    assert resumed["checkpoint"] == undisturbed["checkpoint"]
    assert resumed["everyone"] == [undisturbed["everyone"][0]] * processes
    assert list(chain(*resumed["shards"])) == list(range(SHARDS))  # as the run began with


def test_one_process_needs_no_mpi():
    assert not results()[1]["has MPI"]
    assert results()[2]["has MPI"]


def test_checkpoints_have_what_must_be_the_same():
    names = results()[4]["a ResNet with all that is random"]["checkpoint"]
    some = ("8.weight", "1.running_var", "training/optimizer/velocity/8.weight", "training/totals")
    assert set(some) < set(names)
    assert "training/optimizer/average/1.running_mean" in names
    assert "training/totals/Confusion" in results()[4]["LeNet-5 with momentum"]["checkpoint"]


@pytest.mark.parametrize("name", CASES)
def test_the_histories_are_those_of_training(name):
    _, history = results()[4][name]["everyone"][0]
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert all(isfinite(line[column]) for line in history for column in ("loss", "validation_loss"))
    assert len({line["loss"] for line in history}) == 3


def test_the_schedule_has_looked_at_the_loss():
    _, history = results()[4]["a schedule that looks at the loss"]["everyone"][0]
    assert [line["learning_rate"] for line in history] == [0.05, 0.05, 0.025]


def test_one_shard_is_a_batch_that_is_not_cut(tmp_path):
    name = "LeNet-5 with momentum"
    one = train(name, cnn.distributed.communicator(shards=1), tmp_path)
    assert one == train(name, None, tmp_path)
    weights, history = results()[4][name]["everyone"][0]
    assert one[0] != weights  # the sums are added in another order
    assert [line["loss"] for line in one[1]] == pytest.approx([line["loss"] for line in history], rel=1e-3)
