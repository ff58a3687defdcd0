"""A first convolution that whitens the patches of the training images."""

import numpy as np
import pytest
import scipy.signal

import cnn
from cnn.training import whitening

RANDOM = np.random.default_rng(0)
# neighbouring pixels and the channels of a pixel are alike, as in photographs
SMOOTH = scipy.signal.convolve(RANDOM.normal(size=(60, 3, 14, 14)), np.ones((1, 2, 3, 3)), "same")
DATA = cnn.data.Dataset(np.uint8(np.clip(128 + 20 * SMOOTH, 0, 255)), np.arange(60) % 3)


def network(*first, normalize=True, size=DATA.shape):
    net = cnn.Sequential(*first, cnn.GELU(), cnn.Flatten(), cnn.Dense(3))
    net.build(size, backend="cpu")
    if normalize:
        net.preprocessing = cnn.Preprocessing.of(DATA)
    return net


def outputs(net, data):
    """Of the first layer, as the network prepares the images: (filters, everything else)."""
    shift, scale = net.preprocessing.arrays(data.images.dtype, "float32")
    images = (data.images - shift[:, None, None]) * scale[:, None, None]
    y = net.layers[0].forward(np.ascontiguousarray(np.moveaxis(images, 0, -1)))
    return y.reshape(len(y), -1)


@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (3, 1), ((1, 2), 1), (2, 3), ((1, 3), (1, 2))])
def test_the_outputs_are_uncorrelated_and_have_variance_one(kernel, dilation, monkeypatch):
    monkeypatch.setattr(whitening, "EPSILON", 0)
    height, width = np.broadcast_to(kernel, 2)
    components = 3 * height * width
    net = network(cnn.Conv2D(2 * components, kernel, dilation=dilation))
    cnn.whiten(net, DATA)
    y = outputs(net, DATA)
    np.testing.assert_array_equal(y[components:], -y[:components])
    moments = y[:components] @ y[:components].T / y.shape[1]
    np.testing.assert_allclose(moments, np.eye(components), atol=2e-3)


def test_fewer_filters_take_the_components_with_the_largest_variance(monkeypatch):
    monkeypatch.setattr(whitening, "EPSILON", 0)
    net, all_of_them = network(cnn.Conv2D(6, 2)), network(cnn.Conv2D(24, 2))
    for each in net, all_of_them:
        cnn.whiten(each, DATA)
    weights = all_of_them.state_dict()["0.weight"]
    np.testing.assert_array_equal(net.state_dict()["0.weight"][:3], weights[:3])
    sizes = np.square(weights[:12]).sum((1, 2, 3))  # 1 / variance
    np.testing.assert_array_equal(sizes, np.sort(sizes))


def test_patches_without_variation_are_not_enlarged_without_bound():
    grey = cnn.data.Dataset(np.repeat(DATA.images[:, :1], 3, axis=1), DATA.labels)
    net = network(cnn.Conv2D(24, 2))
    cnn.whiten(net, grey)
    assert np.square(net.state_dict()["0.weight"]).sum((1, 2, 3)).max() < 1.01 / whitening.EPSILON


def test_images_that_are_not_normalized_are_scaled_to_0_to_1():
    net, other = network(cnn.Conv2D(24, 2), normalize=False), network(cnn.Conv2D(24, 2), normalize=False)
    cnn.whiten(net, DATA)
    cnn.whiten(other, cnn.data.Dataset(np.float32(DATA.images) / 255, DATA.labels))
    for half in slice(12), slice(12, None):
        found, expected = (each.state_dict()["0.weight"][half] for each in (net, other))
        signs = np.sign((found * expected).sum((1, 2, 3), keepdims=True))  # a component has no sign
        np.testing.assert_allclose(found, signs * expected, rtol=1e-3, atol=1e-3)


def test_training_leaves_the_layer_as_it_is():
    net = network(cnn.Conv2D(24, 2))
    cnn.whiten(net, DATA)
    before = net.state_dict()
    assert not before["0.bias"].any()
    cnn.fit(net, DATA, optimizer=cnn.SGD(0.1, weight_decay=0.1), normalize=True, callbacks=[])
    after = net.state_dict()
    for name in ("0.weight", "0.bias"):
        np.testing.assert_array_equal(after[name], before[name])
    assert (after["3.weight"] != before["3.weight"]).any()


def test_a_bias_for_each_position_becomes_zero():
    net = network(cnn.Conv2D(24, 2, untied_bias=True))
    net.load_state_dict(net.state_dict() | {"0.bias": np.ones((24, 13, 13))})
    cnn.whiten(net, DATA)
    assert not net.state_dict()["0.bias"].any()


@pytest.mark.parametrize("at_once", [1, 3 * 169 * 12])  # one image, which is more than that; three images
def test_pieces_of_any_size_give_the_same_filters(at_once, monkeypatch):
    whole, pieces = network(cnn.Conv2D(24, 2)), network(cnn.Conv2D(24, 2))
    cnn.whiten(whole, DATA)
    monkeypatch.setattr(whitening, "AT_ONCE", at_once)
    cnn.whiten(pieces, DATA)
    np.testing.assert_allclose(pieces.state_dict()["0.weight"], whole.state_dict()["0.weight"], atol=1e-6)


def test_of_large_images_fewer_are_measured(monkeypatch):
    net, few = network(cnn.Conv2D(24, 2)), network(cnn.Conv2D(24, 2))
    monkeypatch.setattr(whitening, "PATCHES", 3 * 169 + 168)
    cnn.whiten(net, DATA)
    chosen = [0, 29, 59]
    cnn.whiten(few, cnn.data.Dataset(DATA.images[chosen], DATA.labels[chosen], DATA.classes))
    np.testing.assert_array_equal(net.state_dict()["0.weight"], few.state_dict()["0.weight"])


SEES_ALL = "expected a Conv2D that sees all channels and is not inside another layer: put one first, or leave"


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (cnn.Flatten(), f"the first layer is 0 Flatten, {SEES_ALL}"),
        (cnn.Conv2D(6, 2, groups=3), f"the first layer is 0 Conv2D, {SEES_ALL}"),
        (cnn.Sequential(cnn.Conv2D(6, 2)), f"the first layer is 0 Sequential, {SEES_ALL}"),
        (
            cnn.Conv2D(26, 2),
            "has 26 filters, expected an even number of at most 24 to whiten patches of 3 x 2 x 2 numbers: "
            r"change it, or leave whitening out \(--no-whiten\)",
        ),
        (cnn.Conv2D(5, 2), "has 5 filters, expected an even number of at most 24"),
        (cnn.Conv2D(6, 15, padding=1), "sees patches of 15x15, which are larger than the images of 14x14"),
    ],
)
def test_a_layer_that_cannot_whiten_is_refused(first, message):
    net = network(first) if not isinstance(first, cnn.Flatten) else cnn.Sequential(first, cnn.Dense(3))
    if not net.built:
        net.build(DATA.shape, backend="cpu")
    with pytest.raises(cnn.ArgumentError, match=message):
        cnn.whiten(net, DATA)


def test_images_of_another_size_are_refused():
    with pytest.raises(cnn.ShapeError):
        cnn.whiten(network(cnn.Conv2D(24, 2), size=(3, 8, 8)), DATA)
