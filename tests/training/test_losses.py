"""Losses: PyTorch's numbers, finite differences, and the ends of the number line."""

import numpy as np
import pytest

import cnn

pytestmark = pytest.mark.filterwarnings("ignore:BinaryCrossEntropy expects probabilities")

LOSSES = [cnn.CrossEntropy, cnn.BinaryCrossEntropy, cnn.MeanSquaredError]


def built(loss, classes, device="cpu"):
    network = cnn.Sequential(cnn.Dense(classes))
    network.build((2,), backend=device, dtype="float64")
    loss.build(network)
    return loss


def test_cross_entropy_gives_pytorchs_numbers(backend):
    # torch.nn.functional.cross_entropy(..., reduction="none"), PyTorch 2.13.0
    y = np.array([[2, -1, 0.5], [0, 0, 0], [30, -30, 1]]).T
    losses = built(cnn.CrossEntropy(), 3, backend).forward(
        backend.asarray(y), backend.asarray(np.array([0, 2, 1]))
    )
    expected = [0.24131129665715703, 1.0986122886681098, 60.000000000000256]
    np.testing.assert_allclose(backend.to_host(losses), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # torch.nn.functional.binary_cross_entropy and mse_loss, mean over the classes, PyTorch 2.13.0
        (cnn.BinaryCrossEntropy(), [0.1053605156578263, 1.3862943611198906, 0.6931471805599453]),
        (cnn.MeanSquaredError(), [0.01, 0.5625, 0.25]),
    ],
)
def test_losses_of_probabilities_give_pytorchs_numbers(backend, loss, expected):
    y = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]]).T
    losses = built(loss, 2, backend).forward(backend.asarray(y), backend.asarray(np.array([0, 0, 1])))
    np.testing.assert_allclose(backend.to_host(losses), expected, rtol=1e-12)


@pytest.mark.parametrize("make", LOSSES)
def test_gradients_agree_with_finite_differences(make):
    random = np.random.default_rng(0)
    loss = built(make(), 4)
    y, labels = random.uniform(0.05, 0.95, (4, 6)), random.integers(0, 4, 6)
    loss.forward(y, labels)
    dy = loss.backward().copy()
    step = 1e-6
    for entry in np.ndindex(y.shape):
        above, below = y.copy(), y.copy()
        above[entry] += step
        below[entry] -= step
        slope = (loss.forward(above, labels).mean() - loss.forward(below, labels).mean()) / (2 * step)
        assert dy[entry] == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("make", LOSSES)
def test_the_divisor_makes_pieces_add_up_to_the_whole_batch(make):
    random = np.random.default_rng(0)
    y, labels = random.uniform(0.05, 0.95, (3, 7)), random.integers(0, 3, 7)
    loss = built(make(), 3)
    losses = loss.forward(y, labels).copy()
    whole = loss.backward().copy()
    for piece in (np.s_[:4], np.s_[4:]):
        np.testing.assert_allclose(loss.forward(y[:, piece], labels[piece], 7), losses[piece], rtol=1e-14)
        np.testing.assert_allclose(loss.backward(), whole[:, piece], rtol=1e-14)


@pytest.mark.parametrize("make", LOSSES)
def test_what_a_batch_adds_to_the_sums(make, backend):
    y = np.array([[0.7, 0.2, 0.3], [0.3, 0.8, 0.7]])
    loss, sums = built(make(), 2, backend), backend.zeros(3, "float64")
    losses = loss.forward(backend.asarray(y), backend.asarray(np.array([0, 1, 0])), sums=sums)
    total = backend.to_host(losses).sum()
    np.testing.assert_allclose(backend.to_host(sums), [total, 2, 3], rtol=1e-12)


def test_cross_entropy_survives_any_logits():
    loss = built(cnn.CrossEntropy(), 2)
    losses = loss.forward(np.array([[1e300, -1e300], [-1e300, 1e300]]), np.array([0, 0]), 1)
    assert losses.tolist() == [0, 2e300]
    assert loss.backward().tolist() == [[0, -1], [0, 1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_is_safe_at_0_and_1_and_points_the_right_way(dtype):
    loss = built(cnn.BinaryCrossEntropy(), 2)
    losses = loss.forward(np.array([[1, 0], [0, 1]], dtype=dtype), np.array([0, 0]), 1)
    assert np.isfinite(losses).all()
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert losses[1] > 15
    dy = loss.backward()
    assert np.isfinite(dy).all()
    assert dy[0, 1] < -1e6  # raise the probability of the right class
    assert dy[1, 1] > 1e6


def test_a_loss_wants_one_number_for_each_class():
    network = cnn.Sequential(cnn.ReLU())
    network.build((1, 4, 4), backend="cpu")
    with pytest.raises(
        cnn.ShapeError, match=r"output is \(1, 4, 4\), CrossEntropy expects one number for each class"
    ):
        cnn.CrossEntropy().build(network)


def test_cross_entropy_behind_a_softmax_is_warned_of():
    network = cnn.models.notebook()
    network.build((1, 28, 28), backend="cpu")
    with pytest.warns(UserWarning, match="CrossEntropy expects logits"):
        cnn.CrossEntropy().build(network)


def test_cross_entropy_takes_a_logit_of_minus_infinity():
    loss = built(cnn.CrossEntropy(), 3)
    with np.errstate(invalid="raise"):
        losses = loss.forward(np.array([[0, -np.inf, 1]]).T, np.array([2]))
    assert losses[0] == pytest.approx(0.3132616875182228)  # PyTorch 2.13.0
