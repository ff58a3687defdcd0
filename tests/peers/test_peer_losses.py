"""Losses beside torch.nn's: each sample's loss, the gradient, and what goes through a network before."""

import numpy as np
import pytest
from helpers.twins import (
    at_random,
    batch_last,
    batch_sizes,
    built,
    close,
    given,
    nn,
    same_gradients,
    seeds,
    st,
    stacks,
    torch,
)

import cnn

pytestmark = pytest.mark.filterwarnings("ignore:(Binary)?CrossEntropy expects", "ignore::RuntimeWarning")


class OfOneHot(nn.Module):
    """One of PyTorch's losses of numbers and numbers, given labels."""

    def __init__(self, of_numbers, reduction="mean"):
        super().__init__()
        self.of_numbers = of_numbers(reduction=reduction)

    def forward(self, y, labels):
        return self.of_numbers(y, nn.functional.one_hot(labels, y.shape[1]).to(y.dtype))


def binary_cross_entropy(reduction="mean"):
    return OfOneHot(nn.BCELoss, reduction)


def mean_squared_error(reduction="mean"):
    return OfOneHot(nn.MSELoss, reduction)


# ours, PyTorch's, the numbers that it takes
LOSSES = {
    "cross entropy": (
        cnn.CrossEntropy,
        nn.CrossEntropyLoss,
        lambda random, *shape: random.normal(0, 5, shape),
    ),
    "binary cross entropy": (
        cnn.BinaryCrossEntropy,
        binary_cross_entropy,
        lambda random, *shape: random.uniform(1e-6, 1 - 1e-6, shape),
    ),
    "mean squared error": (
        cnn.MeanSquaredError,
        mean_squared_error,
        lambda random, *shape: random.normal(0, 3, shape),
    ),
}


@pytest.fixture(params=LOSSES.values(), ids=list(LOSSES))
def losses(request):
    return request.param


def ready(loss, classes, kernels):
    """A loss built for so many classes."""
    network, _ = built([(cnn.Flatten(), nn.Flatten())], (classes,), kernels)
    loss.build(network)
    return loss


def same_loss(ours, theirs, y, labels):
    """Compare each sample's loss and the gradient of the mean for ``y`` (N, classes)."""
    leaf = torch.tensor(y, requires_grad=True)
    theirs()(leaf, torch.tensor(labels)).backward()
    apart = theirs(reduction="none")(leaf, torch.tensor(labels))
    close("losses", ours.forward(batch_last(y), labels), apart if apart.ndim == 1 else apart.mean(1))
    close("gradient", ours.backward(), batch_last(leaf.grad))


@at_random
@given(st.integers(1, 12), batch_sizes, seeds)
def test_random_numbers(kernels, losses, classes, N, seed):
    make, theirs, draw = losses
    random = np.random.default_rng(seed)
    loss = ready(make(), classes, kernels)
    same_loss(loss, theirs, draw(random, N, classes), random.integers(0, classes, N))


@pytest.mark.parametrize("label", [0, 9])
def test_the_first_class_and_the_last(kernels, losses, label):
    make, theirs, draw = losses
    y = draw(np.random.default_rng(label), 4, 10)
    same_loss(ready(make(), 10, kernels), theirs, y, np.full(4, label))


@at_random
@given(st.integers(2, 12), batch_sizes, seeds)
def test_logits_of_any_size(kernels, classes, N, seed):
    random = np.random.default_rng(seed)
    y = random.choice([0, -0.0, 1, 30, -30, 800, -800, 1e300, -1e300, 1e-310], (N, classes))
    labels = random.integers(0, classes, N)
    same_loss(ready(cnn.CrossEntropy(), classes, kernels), nn.CrossEntropyLoss, y, labels)


@at_random
@given(st.integers(2, 12), batch_sizes, seeds)
def test_infinite_logits_and_nan(kernels, classes, N, seed):
    random = np.random.default_rng(seed)
    y = random.choice([0, 1, 2, 1, 2, np.inf, -np.inf, -np.inf, np.nan], (N, classes))
    labels = random.integers(0, classes, N)
    same_loss(ready(cnn.CrossEntropy(), classes, kernels), nn.CrossEntropyLoss, y, labels)


@pytest.mark.parametrize("make", [cnn.BinaryCrossEntropy, cnn.MeanSquaredError])
def test_nan_among_probabilities(kernels, make):
    theirs = {cnn.BinaryCrossEntropy: binary_cross_entropy, cnn.MeanSquaredError: mean_squared_error}[make]
    loss = ready(make(), 2, kernels)
    y, labels = np.array([[0.5, 0.25], [np.nan, 0.5]]), np.array([0, 1])
    losses = loss.forward(batch_last(y), labels)
    close("a whole sample", losses[0], theirs()(torch.tensor(y[:1]), torch.tensor(labels[:1])))
    assert np.isnan(losses[1])
    assert np.isnan(loss.backward()[0, 1])


class Clipped(nn.Module):
    """The definition of BinaryCrossEntropy; BCELoss is another at the ends, where it counts log 0 as -100."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, p, labels):
        margin = torch.finfo(p.dtype).eps
        # the gradient is that at the clipped number
        p = p + (p.detach().clamp(margin, 1 - margin) - p.detach())
        target = nn.functional.one_hot(labels, p.shape[1]).to(p.dtype)
        losses = -torch.log(target * p + (1 - target) * (1 - p))
        return losses.mean() if self.reduction == "mean" else losses


@at_random
@given(st.integers(2, 12), batch_sizes, seeds)
def test_probabilities_at_the_ends_of_binary_cross_entropy(kernels, classes, N, seed):
    random = np.random.default_rng(seed)
    y = random.choice([0, 1, 1e-17, 1e-300, 1 - 2**-53, 0.5], (N, classes))
    labels = random.integers(0, classes, N)
    same_loss(ready(cnn.BinaryCrossEntropy(), classes, kernels), Clipped, y, labels)


@at_random
@given(st.integers(1, 6).flatmap(stacks), st.data(), st.integers(2, 9), seeds)
def test_a_batch_in_pieces_gives_the_gradient_of_the_whole(kernels, losses, drawn, data, N, seed):
    """With the divisor N the pieces' gradients add up to PyTorch's of the mean over the batch."""
    layers, shape = drawn
    make, theirs, _ = losses
    if make is cnn.BinaryCrossEntropy:  # it takes probabilities
        layers = [*layers, (cnn.Softmax(), nn.Softmax(1))]
    network, peer = built(layers, shape, kernels)
    loss = make()
    loss.build(network)
    random = np.random.default_rng(seed)
    x, labels = random.standard_normal((N, *shape)), random.integers(0, network.output_shape[0], N)
    whole = theirs()(peer(torch.tensor(x)), torch.tensor(labels))
    whole.backward()

    cuts = sorted(data.draw(st.sets(st.integers(1, N - 1), max_size=3)))
    total, gradient = 0, np.zeros_like(network.flat.grad)
    for piece_x, piece_labels in zip(np.split(x, cuts), np.split(labels, cuts), strict=True):
        y = network.forward(batch_last(piece_x), training=True)
        total += loss.forward(y, piece_labels, divisor=N).sum() / N
        network.backward(loss.backward(), input_grad=False)
        gradient += network.flat.grad
    network.flat.grad[...] = gradient
    close("loss", total, whole)
    same_gradients(network, peer)


@at_random
@given(st.integers(1, 20), st.integers(2, 12), batch_sizes, st.sampled_from([1, 3]), seeds)
def test_binary_cross_entropy_of_a_softmax(kernels, features, classes, N, size, seed):
    layers = [(cnn.Dense(classes), nn.Linear(features, classes)), (cnn.Softmax(), nn.Softmax(1))]
    network, peer = built(layers, (features,), kernels)
    random = np.random.default_rng(seed)
    x, labels = random.normal(0, size, (N, features)), random.integers(0, classes, N)
    loss, given_x = cnn.BinaryCrossEntropy(), torch.tensor(x, requires_grad=True)
    loss.build(network)
    expected = binary_cross_entropy()(peer(given_x), torch.tensor(labels))
    expected.backward()
    close("loss", loss.forward(network.forward(batch_last(x), training=True), labels).mean(), expected)
    close("gradient of the input", network.backward(loss.backward()), batch_last(given_x.grad))
    same_gradients(network, peer)
