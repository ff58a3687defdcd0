"""Whole trainings beside PyTorch's: the same images in the same order lead to the same weights."""

import numpy as np
import pytest
from helpers.twins import (
    at_random,
    built,
    close,
    given,
    made_optimizers,
    nn,
    optimizers,
    same_state,
    same_weights,
    scheduler_of,
    seeds,
    st,
    stacks,
    torch,
)

import cnn
from cnn.training import schedules

CRITERIA = {
    cnn.CrossEntropy: lambda y, labels: nn.functional.cross_entropy(y, labels),
    cnn.BinaryCrossEntropy: lambda y, labels: nn.functional.binary_cross_entropy(y, one_hot(labels, y)),
    cnn.MeanSquaredError: lambda y, labels: nn.functional.mse_loss(y, one_hot(labels, y)),
}


def one_hot(labels, y):
    """1 where the label is, (N,) -> like ``y``, (N, classes)."""
    return nn.functional.one_hot(labels, y.shape[1]).to(y.dtype)


def train_peer(peer, optimizer, criterion, data, schedule, epochs, batch_size):
    """What fit does, in PyTorch; -> each epoch's mean loss."""
    images = data.images / 255 if data.images.dtype == np.uint8 else data.images
    images, labels, N = torch.tensor(images), torch.tensor(data.labels), len(data)
    scheduler = scheduler_of(schedule, optimizer, epochs * -(-N // batch_size))
    means = []
    for epoch in range(epochs):
        total = 0.0
        order = cnn.support.random.generator(0, cnn.support.random.SHUFFLE, epoch).permutation(N)
        for batch in np.split(order, range(batch_size, N, batch_size)):
            loss = criterion(peer(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            scheduler.step()
            total += float(loss.detach()) * len(batch)
        means.append(total / N)
    return means


def same_training(network, peer, optimizers, loss, data, schedule, epochs, batch_size, tolerance):
    """Train both and compare the losses, the weights and what the optimizers remember."""
    ours, theirs = optimizers
    means = train_peer(peer, theirs, CRITERIA[type(loss)], data, schedule, epochs, batch_size)
    history = cnn.fit(network, data, None, loss, ours, epochs, batch_size, schedule, callbacks=[])
    close("losses", [record["loss"] for record in history], means, tolerance)
    same_weights(network, peer, tolerance)
    same_state(network, ours, peer, theirs, tolerance)


@pytest.mark.filterwarnings("ignore:CrossEntropy expects logits")
@at_random
@given(
    st.integers(2, 5).flatmap(stacks),
    st.booleans(),
    st.sampled_from(list(CRITERIA)),
    optimizers(fastest=0.01, epsilons=(1e-3,)),  # smaller, it would enlarge how gradients near 0 are rounded
    st.sampled_from([schedules.Constant(), schedules.Linear(warmup=0.25), schedules.Cosine(end=0.1)]),
    st.integers(1, 9),
    seeds,
)
def test_ten_steps_of_random_networks(kernels, drawn, fuse, loss, optimizer, schedule, batch_size, seed):
    layers, shape = drawn
    if loss is cnn.BinaryCrossEntropy:  # it takes probabilities
        layers = [*layers, (cnn.Softmax(), nn.Softmax(1))]
    network, peer = built(layers, shape, kernels, fuse)
    random = np.random.default_rng(seed)
    N = 4 * batch_size + random.integers(1, batch_size + 1)  # five steps, the last of them of a smaller batch
    labels = random.integers(0, network.output_shape[0], N)
    data = cnn.data.Dataset(random.standard_normal((N, *shape)), labels)
    made = made_optimizers(optimizer[0], peer, optimizer[1])
    same_training(network, peer, made, loss(), data, schedule, 2, batch_size, tolerance=1e-10)


LENET = {
    "sgd": ("SGD", {"learning_rate": 0.05}, schedules.Constant()),
    "momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}, schedules.Constant()),
    "nesterov, weight decay": (
        "SGD",
        {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        schedules.Cosine(warmup=0.1),
    ),
    "adam": ("Adam", {"learning_rate": 0.002, "weight_decay": 0.01}, schedules.Linear()),
    "adamw": ("AdamW", {"learning_rate": 0.002, "weight_decay": 0.05}, schedules.Constant()),
}


@pytest.mark.parametrize("name", LENET)
def test_lenet5_trained_50_steps_stays_with_pytorchs(kernels, name):
    kind, settings, schedule = LENET[name]
    theirs = [
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ]  # fmt: skip
    torch.manual_seed(0)
    for layer in theirs:
        if hasattr(layer, "weight"):
            nn.init.kaiming_normal_(layer.weight)
    network, peer = built(list(zip(cnn.models.lenet5().layers, theirs, strict=True)), (1, 28, 28), kernels)
    train, _ = cnn.data.load("mnist")
    part = cnn.data.Dataset(train.images[:80], train.labels[:80])
    made = made_optimizers(kind, peer, settings)
    same_training(network, peer, made, cnn.CrossEntropy(), part, schedule, 5, 8, tolerance=1e-6)
