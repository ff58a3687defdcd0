"""Data sets whose images have rows of numbers, targets of any shape, or weights."""

import pickle

import numpy as np
import pytest
from helpers.standin import StandInBackend

import backends
import cnn
from cnn.data import Dataset
from cnn.data.feed import Feed

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (70, 1, 4, 4), dtype=np.uint8)
SOFT = RANDOM.dirichlet(np.ones(3), 70)
SEVERAL = RANDOM.integers(0, 2, (70, 3)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 70)
WEIGHTS = RANDOM.uniform(0, 2, 70)

TARGETS = {  # the arguments of a data set, and the shape of the targets
    "labels": ({"labels": LABELS}, ()),
    "soft labels": ({"labels": SOFT}, (3,)),
    "several labels": ({"labels": SEVERAL}, (3,)),
    "numbers": ({"targets": RANDOM.standard_normal(70)}, (1,)),
    "vectors": ({"targets": RANDOM.standard_normal((70, 5))}, (5,)),
    "grey pictures": ({"targets": IMAGES[:, 0] // 2}, (1, 4, 4)),
    "pictures": ({"targets": RANDOM.standard_normal((70, 2, 3, 3))}, (2, 3, 3)),
    "the images": ({"targets": IMAGES}, (1, 4, 4)),
}


@pytest.fixture(params=TARGETS.values(), ids=list(TARGETS))
def targets(request):
    return request.param


def test_their_shape(targets):
    given, shape = targets
    data = Dataset(IMAGES, **given)
    assert data.targets.shape == (70, *shape)
    if "labels" in given:
        assert data.labels is data.targets
        assert data.classes == ("0", "1", "2")
    else:
        assert data.classes == ()
        assert f"targets {'x'.join(map(str, shape))}" in repr(data)


def expected(values):
    values = np.asarray(values)
    return np.moveaxis(values / 255 if values.dtype == np.uint8 else values, 0, -1)


@pytest.mark.parametrize("kernels", ["compiled", "portable"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("device", ["cpu", "stand-in"])
def test_a_batch_has_them_and_their_weights_in_the_order_of_the_images(targets, device, stream, kernels):
    backend = backends.get("cpu", kernels) if device == "cpu" else StandInBackend(kernels)
    data = Dataset(IMAGES, **targets[0], weights=WEIGHTS)
    order = RANDOM.permutation(70)
    feed = Feed(backend, "float64", data.images, data.targets, 16, stream, weights=data.weights)
    feed.start(order)
    for number, (x, found) in enumerate(feed):
        chosen = order[number * 16 : (number + 1) * 16]
        for array, values in ((x, data.images), (found, data.targets), (feed.weights, data.weights)):
            np.testing.assert_allclose(backend.to_host(array), expected(values[chosen]), rtol=1e-15)


def test_images_that_are_the_targets_lie_on_the_device_once():
    backend = StandInBackend()
    data = Dataset(IMAGES, targets=IMAGES)
    assert data.targets is data.images
    part, _ = data.split(20)
    assert part.targets is part.images
    twin = pickle.loads(pickle.dumps(data))
    assert twin.targets is twin.images
    feed = Feed(backend, "float32", data.images, data.targets, 16)
    assert feed._source.stored.targets is feed._source.stored.images


def test_parts_keep_targets_and_weights_together(targets):
    data = Dataset(IMAGES, **targets[0], weights=WEIGHTS)
    positions = {image.tobytes(): number for number, image in enumerate(IMAGES)}
    for part in data.split(20, seed=1):
        chosen = [positions[image.tobytes()] for image in part.images]
        np.testing.assert_array_equal(part.targets, data.targets[chosen])
        np.testing.assert_array_equal(part.weights, data.weights[chosen])


def test_only_keeps_the_weights():
    part = Dataset(IMAGES, LABELS, weights=WEIGHTS).only(classes=(2, 0))
    np.testing.assert_array_equal(part.weights, WEIGHTS[LABELS != 1])


def test_pickled_sets_are_the_same(targets):
    data = Dataset(IMAGES, **targets[0], weights=WEIGHTS)
    twin = pickle.loads(pickle.dumps(data))
    assert twin.fingerprint == data.fingerprint
    np.testing.assert_array_equal(twin.targets, data.targets)
    np.testing.assert_array_equal(twin.weights, data.weights)


def test_a_mapped_file_can_be_both(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = Dataset(mapped, targets=mapped)
    twin = pickle.loads(pickle.dumps(data))
    assert twin.targets is twin.images
    np.testing.assert_array_equal(twin.targets, IMAGES)
    other = pickle.loads(pickle.dumps(Dataset(np.array(IMAGES), targets=mapped)))
    np.testing.assert_array_equal(other.targets, IMAGES)


def test_the_fingerprint_depends_on_all():
    sets = [
        Dataset(IMAGES, LABELS),
        Dataset(IMAGES, LABELS, weights=WEIGHTS),
        Dataset(IMAGES, LABELS, weights=WEIGHTS + 1),
        *(Dataset(IMAGES, **given) for name, (given, _) in TARGETS.items() if name != "labels"),
    ]
    assert len({data.fingerprint for data in sets}) == len(sets)


def test_one_hot_rows_are_labels_and_others_are_not():
    assert Dataset(IMAGES, np.eye(3)[LABELS]).has_one_class_each
    soft, several = Dataset(IMAGES, SOFT), Dataset(IMAGES, SEVERAL)
    assert (soft.has_one_class_each, soft.has_accuracy) == (False, True)
    assert (several.has_one_class_each, several.has_accuracy) == (False, False)


@pytest.mark.parametrize("call", [lambda data: data.only([1]), lambda data: data.labelled_as(("1",))])
@pytest.mark.parametrize("name", ["soft labels", "several labels", "vectors"])
def test_what_needs_classes_says_so(name, call):
    with pytest.raises(cnn.DataError, match=r"(only|labelled_as) needs a class for each image"):
        call(Dataset(IMAGES, **TARGETS[name][0]))


def test_a_set_of_targets_has_no_labels():
    with pytest.raises(cnn.DataError, match="70 images 1x4x4 uint8, targets 5\\) has no labels"):
        _ = Dataset(IMAGES, targets=np.zeros((70, 5))).labels


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({}, "labels and targets are not given"),
        ({"labels": LABELS, "targets": SOFT}, "labels and targets are both given"),
        ({"targets": SOFT, "classes": 3}, "classes and targets are both given"),
        ({"targets": SOFT[1:]}, "70 images but 69 targets; expected one target for each image"),
        ({"targets": SOFT.astype(str)}, "targets: shape \\(70, 3\\), dtype <U"),
        ({"targets": np.zeros((70, 1, 1, 1, 1))}, "targets: shape \\(70, 1, 1, 1, 1\\)"),
        ({"targets": np.where(SOFT < 0.01, np.nan, SOFT)}, "targets: target [0-9]+ contains NaN"),
        ({"targets": np.full((70, 2, 2), np.inf)}, "targets: target 0 contains NaN or infinity"),
        ({"labels": SOFT[1:]}, "70 images but 69 labels"),
        ({"labels": LABELS, "weights": 1}, "weights: shape \\(\\)"),
        ({"labels": LABELS, "weights": WEIGHTS[1:]}, "expected one number for each of the 70 images"),
        ({"labels": LABELS, "weights": -WEIGHTS}, "weights: -[0-9.]+ at position 0"),
        ({"labels": LABELS, "weights": WEIGHTS * np.nan}, "weights: nan at position 0"),
        ({"labels": LABELS, "weights": WEIGHTS * 0}, "weights: all are 0"),
        ({"labels": LABELS, "weights": ["a"] * 70}, "weights: shape \\(70,\\), dtype <U1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, what):
    with pytest.raises(cnn.DataError, match=what):
        Dataset(IMAGES, **arguments)
