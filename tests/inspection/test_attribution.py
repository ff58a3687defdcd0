"""What the layers of a network give, and which pixels its answer depends on."""

import numpy as np
import pytest

import backends
import cnn
from cnn.inspection.activations import activations
from cnn.inspection.attribution import occlusion, saliency
from cnn.support.errors import ArgumentError, ShapeError

SHAPE = (2, 9, 8)


def plain():
    return [
        cnn.Conv2D(4, 3),
        cnn.ReLU(),
        cnn.MaxPool2D(2),
        cnn.Flatten(),
        cnn.Dense(8),
        cnn.Tanh(),
        cnn.Dense(3),
    ]


def residual():
    """With all that behaves otherwise in training: normalization and dropout."""
    return [
        cnn.Conv2D(4, 3, padding=1, bias=False), cnn.BatchNorm2D(), cnn.ReLU(), cnn.Dropout2D(0.5),
        cnn.Residual(cnn.Conv2D(4, 3, padding=1), cnn.BatchNorm2D(), cnn.ReLU(), cnn.Conv2D(4, 3, padding=1)),
        cnn.ReLU(),
        cnn.Residual(
            cnn.Conv2D(6, 3, stride=2, padding=1), cnn.BatchNorm2D(), shortcut=cnn.Conv2D(6, 1, stride=2)
        ),
        cnn.ReLU(), cnn.GlobalAvgPool2D(), cnn.Dropout(0.5), cnn.Dense(3), cnn.Softmax(),
    ]  # fmt: skip


def built(layers, kernels, dtype="float64"):
    network = cnn.Sequential(*layers)
    network.build(SHAPE, backend=backends.get("cpu", kernels), dtype=dtype)
    random = np.random.default_rng(0)
    for array in network.state.values():  # so that the running averages are those of no batch
        if array.dtype.kind == "f":
            array[...] += 0.2 * random.random(array.shape) - 0.1
    network.preprocessing = cnn.Preprocessing((0.2, 0.4), (0.5, 0.25))
    return network


@pytest.fixture(params=[plain, residual])
def network(request, kernels):
    return built(request.param(), kernels)


@pytest.fixture
def images():
    return np.random.default_rng(1).random((2, *SHAPE))


def outputs(network, x):
    """The scores for preprocessed images (N, C, H, W)."""
    batch = network.backend.asarray(np.ascontiguousarray(np.moveaxis(x, 0, -1)))
    return network.backend.to_host(network.forward(batch)).T.copy()


def test_saliency_is_the_slope_of_the_score_of_inference(network, images):
    classes = [2, 0]
    found = saliency(network, images, classes)
    assert found.shape == images.shape
    x = (images - np.array([0.2, 0.4])[:, None, None]) / np.array([0.5, 0.25])[:, None, None]
    random = np.random.default_rng(2)
    largest = np.abs(found).max()
    assert largest > 1e-4
    for _ in range(12):
        place = tuple(int(random.integers(size)) for size in SHAPE)
        for n, label in enumerate(classes):
            above, below = x.copy(), x.copy()
            above[(n, *place)] += 1e-6
            below[(n, *place)] -= 1e-6
            slope = (outputs(network, above)[n, label] - outputs(network, below)[n, label]) / 2e-6
            assert found[(n, *place)] == pytest.approx(slope, rel=1e-4, abs=1e-5 * largest)


def test_nothing_of_the_network_changes(network, images):
    before = {name: array.copy() for name, array in network.state.items()}
    gradients = network.flat.grad.copy()
    answer = network.predict(images)
    saliency(network, images, [0, 1])
    occlusion(network, images[0], 1)
    activations(network, images)
    for name, array in network.state.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    np.testing.assert_array_equal(network.flat.grad, gradients)
    np.testing.assert_array_equal(network.predict(images), answer)
    assert network.frozen_names == ()


def slow_occlusion(network, image, label, size, stride):
    """The definition, pixel by pixel."""
    H, W = image.shape[1:]
    tops = [top for top in range(H - size + 1) if top % stride == 0 or top == H - size]
    lefts = [left for left in range(W - size + 1) if left % stride == 0 or left == W - size]
    before = network.predict(image[None])[0, label]
    changes = [[[] for _ in range(W)] for _ in range(H)]
    for top in tops:
        for left in lefts:
            covered = image.copy()
            for channel in range(len(image)):
                covered[channel, top : top + size, left : left + size] = np.median(image[channel])
            change = before - network.predict(covered[None])[0, label]
            for row in range(top, top + size):
                for column in range(left, left + size):
                    changes[row][column].append(change)
    return np.array([[np.mean(each) for each in row] for row in changes])


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (4, 4), (1, 1), (8, 3)])
def test_occlusion_is_that_of_a_slow_loop(network, images, size, stride):
    found = occlusion(network, images[0], 1, size, stride)
    np.testing.assert_allclose(found, slow_occlusion(network, images[0], 1, size, stride), atol=1e-12)


def test_occlusion_of_bytes_in_its_usual_size(kernels):
    network = built(plain(), kernels, "float32")
    image = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    expected = slow_occlusion(network, image, 2, 1, 1)
    np.testing.assert_allclose(occlusion(network, image, 2), expected, atol=1e-6)


def test_activations_are_what_the_layers_give(network, images):
    found = activations(network, images)
    expected = sorted(layer.label for layer in network.walk() if not layer.is_view)
    assert sorted(each.layer for each in found) == expected
    x = (images - np.array([0.2, 0.4])[:, None, None]) / np.array([0.5, 0.25])[:, None, None]
    assert found[0].values.shape == (2, *network.layers[0].output_shape)
    np.testing.assert_allclose(found[-1].values, outputs(network, x), atol=1e-12)
    assert all(len(each.values) == 2 for each in found)


@pytest.mark.parametrize("label", [-1, 3, 1.5, True])
def test_a_class_that_there_is_not(images, label):
    network = built(plain(), "auto")
    with pytest.raises(ArgumentError, match="class"):
        saliency(network, images[:1], [label])
    with pytest.raises(ArgumentError, match="class"):
        occlusion(network, images[0], label)


def test_images_and_networks_that_do_not_suit(images):
    network = built(plain(), "auto")
    with pytest.raises(ShapeError, match="the network was built for"):
        saliency(network, images[:, :1], [0, 0])
    with pytest.raises(ShapeError, match="expected one for each image"):
        saliency(network, images, [0])
    pictures = cnn.Sequential(cnn.Conv2D(3, 1))
    pictures.build(SHAPE, backend="cpu")
    with pytest.raises(ShapeError, match="expected a number for each class"):
        occlusion(pictures, images[0], 0)
