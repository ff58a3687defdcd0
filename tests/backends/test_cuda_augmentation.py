"""Augmentation by the CUDA kernels: the bits of the portable ones, in few launches, in recorded steps too."""

import re

import numpy as np
import pytest
from helpers import host_cuda, nvrtc
from helpers.host_cuda import RawModule
from helpers.standin import StandInBackend, counters

import backends
import cnn
from backends.cuda.kernels import augmentation
from backends.cuda.launch import definitions, sources
from cnn.data.augmentation import EXAMPLES, CutMix, Erase, Flip, Mixup, Rotate, Shift, parse
from cnn.data.feed import Feed
from cnn.selftest.calls import calls
from cnn.training.callbacks import Callback

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (70, 3, 9, 10), dtype=np.uint8)
LABELS = np.arange(70) % 3
KERNELS = ("draw", "augment_batch", "augment_pairs", "mix_targets", "next_batch")
CALLS = {
    f"{call.name}, {dtype}": call
    for dtype in ("float32", "float64")
    for call in calls(dtype)
    if call.name.startswith(KERNELS)
}
REFERENCE = backends.CpuBackend("portable")


PLACES = [
    pytest.param("forwards", marks=host_cuda.needed),
    pytest.param("backwards", marks=host_cuda.needed),
    pytest.param("on a GPU", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", [name for name in CALLS if "small" in name])
def test_every_kernel_gives_the_bits_of_the_portable_one(name, place, monkeypatch):
    monkeypatch.setattr(RawModule, "backwards", place == "backwards")
    device = backends.get("cuda", "compiled") if place == "on a GPU" else StandInBackend("compiled")
    found, expected = CALLS[name].run(device), CALLS[name].run(REFERENCE)
    for argument, array in expected.items():
        np.testing.assert_array_equal(found[argument], array, err_msg=argument)


@host_cuda.needed
@pytest.mark.parametrize("augment", [[Shift(2)], list(parse(EXAMPLES))], ids=["one", "all"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_has_the_bits_of_the_portable_kernels(augment, dtype):
    batches = []
    for device in (StandInBackend("compiled"), REFERENCE):
        feed = Feed(device, dtype, IMAGES, LABELS, 33, augment=augment, classes=3, seed=1)
        batches.append([device.to_host(array) for pair in feed for array in pair])
    for one, other in zip(*batches, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(nvrtc.library() is None, reason="NO CUDA KERNEL WAS COMPILED: no nvidia-cuda-nvrtc")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_compiler_fuses_no_product_with_a_sum(dtype):
    """Such a sum would be rounded once where other devices round twice."""
    code = nvrtc.assembly(sources()["augmentation"], "sm_90", definitions(dtype))
    products = re.findall(r"\b(?:mul|mad|fma)\.[\w.]*f(?:32|64)\b", code)
    assert set(products) == {"mul.rn.f64"} | ({"mul.rn.f32"} if dtype == "float32" else set())


def gathered(feed):
    """How much a batch asks of the device, after one that allocates what is needed."""
    asked = []
    with feed.backend.active():
        for _ in feed.batches():
            before = counters.works
            feed.gather()
            asked.append(counters.works - before)
    assert len(set(asked[1:])) == 1
    return asked[-1]


@host_cuda.needed
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("augment", "launches"),
    [
        ([], 2),
        ([Shift(2), Flip()], 3),
        ([Rotate(10), Erase(3)], 3),
        ([Mixup(0.4)], 4),
        (list(parse(EXAMPLES)), 4),
    ],
    ids=["none", "whole pixels", "interpolated", "mixup", "all"],
)
def test_how_many_launches_gather_a_batch(augment, launches, stream):
    device = StandInBackend("compiled")
    feed = Feed(device, "float32", IMAGES, LABELS, 10, stream, augment=augment, classes=3)
    assert gathered(feed) == launches  # docs/measurements/cuda.md


@host_cuda.needed
@pytest.mark.parametrize(("augment", "launches"), [([Shift(2)], 5), ([Mixup(0.4)], 7)])
def test_weights_and_targets_that_are_no_labels_are_gathered_by_launches_of_their_own(augment, launches):
    soft, weights = np.eye(3)[LABELS], np.linspace(0.5, 1.5, 70)
    device = StandInBackend("compiled")
    feed = Feed(device, "float32", IMAGES, soft, 10, augment=augment, classes=3, weights=weights)
    assert gathered(feed) == launches  # docs/measurements/cuda.md


@host_cuda.needed
def test_more_than_a_launch_takes_goes_another_way_to_the_same_bits(monkeypatch):
    augment = list(parse(EXAMPLES))
    batches = []
    for limit in (None, "MOST_STEPS", "SHARED_BYTES"):
        with monkeypatch.context() as patch:
            if limit:
                patch.setattr(augmentation, limit, 2)
            feed = Feed(StandInBackend("compiled"), "float64", IMAGES, LABELS, 35, augment=augment, classes=3)
            launches = gathered(feed)
            assert launches > 20 if limit else launches == 4
            batches.append([feed.backend.to_host(array) for pair in feed for array in pair])
    for other in batches[1:]:
        for one, another in zip(batches[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


class Watch(Callback):
    """What the host asks of the device in each step."""

    def __init__(self):
        self.works, self.crossings = [], []

    def on_start(self, run):
        self.backend = run.network.backend
        self.backend.reset_counters()

    def on_step(self, run):
        self.works.append(counters.works)
        self.crossings.append(self.backend.crossings)
        self.backend.reset_counters()


def trained(kernels, augment, **options):
    """The weights after two epochs of four batches of 16 images and one of 6."""
    net = cnn.Sequential(cnn.Flatten(), cnn.Dense(3))
    net.build((3, 9, 10), backend=StandInBackend(kernels), dtype="float64")
    options = {"epochs": 2, "batch_size": 16, "callbacks": [], "seed": 2, "normalize": True} | options
    cnn.fit(net, cnn.data.Dataset(IMAGES, LABELS), augment=augment, **options)
    return net.state_dict()


@host_cuda.needed
@pytest.mark.parametrize("name", [*EXAMPLES, "all"])
def test_a_recorded_training_run_with_augmentation_has_the_same_bits(name):
    augment = list(parse(EXAMPLES if name == "all" else [name]))
    recorded, plain = (trained("compiled", augment, graph=graph) for graph in (True, False))
    portable, without = trained("portable", augment), trained("portable", None)
    for key, value in recorded.items():
        np.testing.assert_array_equal(value, plain[key])
        np.testing.assert_allclose(value, portable[key], rtol=1e-9, atol=1e-12)
        assert (value != without[key]).any()


@host_cuda.needed
def test_a_steady_step_with_augmentation_is_one_launch_without_a_crossing():
    watch = Watch()
    trained("compiled", [Flip(), Mixup(0.4), CutMix(1.0)], epochs=3, callbacks=[watch])
    steady = [step for epoch in range(1, 3) for step in range(5 * epoch + 1, 5 * epoch + 4)]
    assert [watch.works[step] for step in steady] == [0] * 6
    assert [watch.crossings[step] for step in steady] == [0] * 6
