"""Layers and whole trainings against PyTorch, where it is installed: pip install torch."""

import numpy as np
import pytest
from devices import get

import cnn

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
nn = torch.nn


def random_pairs(random):
    """(ours, PyTorch's, input shape) for random arguments."""
    pair = lambda low, high: tuple(int(n) for n in random.integers(low, high + 1, 2))  # noqa: E731
    groups = int(random.integers(1, 4))
    channels, filters = groups * int(random.integers(1, 4)), groups * int(random.integers(1, 4))
    shape = (channels, *(int(n) for n in random.integers(9, 14, 2)))
    kernel, stride, padding, dilation = pair(1, 4), pair(1, 3), pair(0, 3), pair(1, 2)
    half = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    bias = bool(random.integers(2))
    yield (
        cnn.Conv2D(filters, kernel, stride, padding, dilation, groups, bias),
        nn.Conv2d(channels, filters, kernel, stride, padding, dilation, groups, bias),
        shape,
    )
    yield cnn.MaxPool2D(kernel, stride, half, dilation), nn.MaxPool2d(kernel, stride, half, dilation), shape
    yield cnn.AvgPool2D(kernel, stride, half), nn.AvgPool2d(kernel, stride, half), shape
    yield cnn.Dense(filters, bias), nn.Linear(channels, filters, bias), (channels,)
    yield cnn.ReLU(), nn.ReLU(), shape
    yield cnn.Tanh(), nn.Tanh(), shape
    yield cnn.Softmax(), nn.Softmax(dim=1), shape
    yield cnn.Flatten(), nn.Flatten(), shape


def batch_last(x):
    return np.ascontiguousarray(np.moveaxis(np.asarray(x), 0, -1))


@pytest.mark.parametrize("seed", range(40))
def test_layers_give_the_same_output_and_gradients(seed, kernels):
    random = np.random.default_rng(seed)
    for ours, theirs, shape in random_pairs(random):
        network, theirs = cnn.Sequential(ours), theirs.double()
        network.build(shape, backend=get("cpu", kernels), dtype="float64")
        network.load_state_dict({f"0.{k}": v.numpy() for k, v in theirs.state_dict().items()})
        x = torch.tensor(random.standard_normal((3, *shape)), requires_grad=True)
        y = theirs(x)
        dy = torch.tensor(random.standard_normal(tuple(y.shape)))
        y.backward(dy)
        our_y = network.forward(batch_last(x.detach()), training=True)
        np.testing.assert_allclose(our_y, batch_last(y.detach()), rtol=1e-10, atol=1e-10, err_msg=repr(ours))
        dx = network.backward(batch_last(dy))
        np.testing.assert_allclose(dx, batch_last(x.grad), rtol=1e-10, atol=1e-10, err_msg=repr(ours))
        for name, parameter in theirs.named_parameters():
            ours_grad = network.parameters[f"0.{name}"].grad
            np.testing.assert_allclose(ours_grad, parameter.grad, rtol=1e-10, atol=1e-10, err_msg=repr(ours))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: cnn.SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
        (
            lambda: cnn.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        (
            lambda: cnn.AdamW(0.002, weight_decay=0.05),
            lambda p: torch.optim.AdamW(p, 0.002, weight_decay=0.05),
        ),
    ],
)
def test_lenet5_trained_50_steps_stays_with_pytorchs(ours, theirs):
    network = cnn.models.lenet5()
    network.build((1, 28, 28), backend="cpu", dtype="float64")
    peer = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ).double()  # fmt: skip
    peer.load_state_dict({name: torch.from_numpy(value) for name, value in network.state_dict().items()})
    train, _ = cnn.data.load("mnist")
    part = cnn.data.Dataset(train.images[:400], train.labels[:400])

    order = []

    class Same(cnn.CrossEntropy):
        """Notes what each batch was, so that the peer gets the same."""

        def evaluate(self, y, labels, *rest):
            order.append(labels.copy())
            super().evaluate(y, labels, *rest)

    optimizer, criterion = theirs(peer.parameters()), nn.CrossEntropyLoss()
    losses = []
    for epoch in range(5):
        chosen = cnn.random.generator(0, cnn.random.SHUFFLE, epoch).permutation(400)
        for start in range(0, 400, 40):
            batch = chosen[start : start + 40]
            loss = criterion(
                peer(torch.from_numpy(part.images[batch] / 255)), torch.from_numpy(part.labels[batch])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    history = cnn.fit(network, part, loss=Same(), optimizer=ours(), epochs=5, batch_size=40, callbacks=[])
    assert len(order) == 50
    for epoch, record in enumerate(history):
        assert record["loss"] == pytest.approx(np.mean(losses[epoch * 10 : epoch * 10 + 10]), rel=1e-6)
    for (name, parameter), peers in zip(network.parameters.items(), peer.parameters(), strict=True):
        np.testing.assert_allclose(parameter.value, peers.detach(), rtol=1e-6, atol=1e-6, err_msg=name)
