"""Losses with weights, smoothing, soft labels, several labels and pictures next to PyTorch's."""

import numpy as np
import pytest
from helpers.twins import at_random, batch_last, batch_sizes, close, given, nn, seeds, st, torch

import backends
import cnn

F = nn.functional


def ready(loss, output, kernels):
    """A loss built for an output of this shape."""
    network = cnn.Sequential(cnn.Dense(output[0])) if len(output) == 1 else cnn.Sequential(cnn.ReLU())
    network.build((3,) if len(output) == 1 else output, backend=backends.get("cpu", kernels), dtype="float64")
    loss.build(network)
    return loss


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def same(ours, theirs, y, targets, weights=None):
    """Compare the mean and its gradient; ``theirs`` is a function of tensors."""
    leaf = torch.tensor(y, requires_grad=True)
    expected = theirs(leaf, torch.tensor(targets))
    expected.backward()
    sums = np.zeros(5 if ours.has_shares else 3)
    arrays = batch_last(y), targets if targets.ndim == 1 else batch_last(targets)
    ours.forward(*arrays, sums=sums, weights=weights)
    close("mean", sums[0] / sums[3 if ours.has_shares else 2], expected)
    close("gradient", ours.backward(), batch_last(leaf.grad))


def one_hot(labels, classes):
    return F.one_hot(torch.tensor(labels), classes).to(torch.float64)


@at_random
@given(st.integers(2, 9), batch_sizes, st.sampled_from([0, 0.1, 0.5]), st.booleans(), st.booleans(), seeds)
def test_cross_entropy_of_labels(kernels, classes, N, smoothing, weighted, ignores, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, N)
    labels[0] = 0
    weights = random.uniform(0.1, 3, classes).tolist() if weighted else None
    ignored = classes - 1 if ignores else None
    loss = ready(cnn.CrossEntropy(smoothing, weights, ignored), (classes,), kernels)

    def theirs(y, t):
        weight = None if weights is None else double(weights)
        ignore_index = -100 if ignored is None else ignored
        return F.cross_entropy(y, t, weight, ignore_index=ignore_index, label_smoothing=smoothing)

    same(loss, theirs, random.normal(0, 5, (N, classes)), labels)


def test_labels_beyond_the_classes_can_be_ignored(kernels):
    y, labels = np.random.default_rng(0).normal(0, 3, (6, 4)), np.array([0, -100, 3, 2, -100, 1])
    loss = ready(cnn.CrossEntropy(ignore_label=-100), (4,), kernels)
    same(loss, F.cross_entropy, y, labels)


@at_random
@given(st.integers(2, 9), batch_sizes, st.sampled_from([0, 0.1]), st.booleans(), seeds)
def test_cross_entropy_of_soft_labels(kernels, classes, N, smoothing, weighted, seed):
    random = np.random.default_rng(seed)
    weights = random.uniform(0.1, 3, classes).tolist() if weighted else None
    loss = ready(cnn.CrossEntropy(smoothing, weights), (classes,), kernels)

    def theirs(y, t):
        weight = None if weights is None else double(weights)
        return F.cross_entropy(y, t, weight, label_smoothing=smoothing)

    same(loss, theirs, random.normal(0, 5, (N, classes)), random.dirichlet(np.ones(classes), N))


@at_random
@given(st.integers(2, 9), batch_sizes, st.sampled_from([0, 0.5, 1, 2, 3.5]), st.booleans(), seeds)
def test_focal_loss(kernels, classes, N, gamma, weighted, seed):
    random = np.random.default_rng(seed)
    alpha = random.uniform(0.1, 3, classes).tolist() if weighted else None
    labels = random.integers(0, classes, N)

    def theirs(y, t):
        p = F.softmax(y, dim=1).gather(1, t[:, None])[:, 0]
        factor = 1 if alpha is None else double(alpha)[t]
        return (factor * (1 - p) ** gamma * F.cross_entropy(y, t, reduction="none")).mean()

    loss = ready(cnn.Focal(gamma, alpha), (classes,), kernels)
    same(loss, theirs, random.normal(0, 3, (N, classes)), labels)


@at_random
@given(st.integers(1, 9), batch_sizes, st.sampled_from([None, 3.0, "each"]), seeds)
def test_binary_cross_entropy_with_logits(kernels, classes, N, weights, seed):
    random = np.random.default_rng(seed)
    weights = random.uniform(0.1, 3, classes).tolist() if weights == "each" else weights
    targets = random.integers(0, 2, (N, classes)).astype(float)

    def theirs(y, t):
        factors = None if weights is None else double(weights)
        return F.binary_cross_entropy_with_logits(y, t, pos_weight=factors)

    y = random.choice([0, 1, -3, 40, -40, 800, -1e4, 1e4], (N, classes))
    same(ready(cnn.BCEWithLogits(weights), (classes,), kernels), theirs, y, targets)
    soft = random.uniform(0, 1, (N, classes))
    same(ready(cnn.BCEWithLogits(weights), (classes,), kernels), theirs, y, soft)


LOSSES = {
    "squared": (cnn.MeanSquaredError, F.mse_loss),
    "L1": (cnn.L1, F.l1_loss),
    "Huber": (cnn.Huber, F.huber_loss),
    "Huber of 0.3": (lambda: cnn.Huber(0.3), lambda y, t: F.huber_loss(y, t, delta=0.3)),
    "logits": (cnn.BCEWithLogits, F.binary_cross_entropy_with_logits),
}


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3, 4)])
@pytest.mark.parametrize(("make", "theirs"), LOSSES.values(), ids=list(LOSSES))
@pytest.mark.parametrize("scale", [1, 1e4])
def test_numbers_of_any_shape(kernels, make, theirs, shape, scale):
    random = np.random.default_rng(0)
    y, targets = random.normal(0, scale, (7, *shape)), random.uniform(0, 1, (7, *shape))
    same(ready(make(), shape, kernels), theirs, y, targets)


@pytest.mark.parametrize(("make", "theirs"), LOSSES.values(), ids=list(LOSSES))
def test_labels_are_one_hot(kernels, make, theirs):
    random = np.random.default_rng(0)
    y, labels = random.normal(0, 2, (7, 4)), random.integers(0, 4, 7)
    same(ready(make(), (4,), kernels), lambda y, t: theirs(y, one_hot(labels, 4)), y, labels)


def test_binary_cross_entropy_of_several_labels(kernels):
    random = np.random.default_rng(0)
    y, targets = random.uniform(0.01, 0.99, (7, 4)), random.uniform(0, 1, (7, 4))
    with pytest.warns(UserWarning, match="expects probabilities"):
        loss = ready(cnn.BinaryCrossEntropy(), (4,), kernels)
    same(loss, F.binary_cross_entropy, y, targets)


@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_samples_multiply_and_the_mean_stays_that_of_the_losses(kernels, weighted):
    """Over the number of samples, or over the weights of the labels."""
    random = np.random.default_rng(0)
    y, labels, weights = random.normal(0, 2, (7, 4)), random.integers(0, 4, 7), random.uniform(0, 2, 7)
    of_classes = [1.0, 2, 0.5, 3] if weighted else None

    def theirs(y, t):
        losses = F.cross_entropy(y, t, of_classes and double(of_classes), reduction="none")
        total = sum(of_classes[label] for label in labels) if of_classes else 7
        return (losses * double(weights)).sum() / total

    same(ready(cnn.CrossEntropy(class_weights=of_classes), (4,), kernels), theirs, y, labels, weights)


@pytest.mark.parametrize("make", [cnn.CrossEntropy, lambda: cnn.CrossEntropy(0.1, [1.0] * 5), cnn.Focal])
@pytest.mark.parametrize("size", [1e4, -1e4, 1e300])
def test_logits_of_any_size_give_finite_gradients(kernels, make, size):
    random = np.random.default_rng(0)
    y = random.choice([0, size, -size, 1], (9, 5))
    loss = ready(make(), (5,), kernels)
    for targets in (random.integers(0, 5, 9), batch_last(random.dirichlet(np.ones(5), 9))):
        losses = loss.forward(batch_last(y), targets)
        assert np.isfinite(loss.backward()).all()
        assert np.isfinite(losses).all()
