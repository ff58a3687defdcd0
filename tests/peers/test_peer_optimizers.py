"""Optimizers beside torch.optim's: weights and state after every step, for random gradients and settings."""

import numpy as np
import pytest
from helpers.twins import (
    TOLERANCE,
    assume,
    at_random,
    built,
    given,
    made_optimizers,
    nn,
    optimizers,
    same_state,
    same_weights,
    seeds,
    st,
    torch,
)

import cnn


def of_any_size(random, shape):
    """Normal numbers, large and small, one in ten of them 0."""
    gradient = random.standard_normal(shape) * random.choice([1e-3, 1, 1e3], shape)
    return np.where(random.random(shape) < 0.1, 0, gradient)


def follow(kernels, drawn, rates, seed=0, gradients=of_any_size):
    """Give both the same gradients, a step for each of the learning rates, and compare after each."""
    layers = [(cnn.Dense(3), nn.Linear(5, 3)), (cnn.Dense(2, bias=False), nn.Linear(3, 2, bias=False))]
    network, peer = built(layers, (5,), kernels)
    kind, settings = drawn
    ours, theirs = made_optimizers(kind, peer, settings)
    ours.build(network)
    random = np.random.default_rng(seed)
    for rate in rates:
        for parameter, peers in zip(network.parameters.values(), peer.parameters(), strict=True):
            parameter.grad[...] = gradients(random, parameter.shape)
            peers.grad = torch.tensor(parameter.grad)
        theirs.param_groups[0]["lr"] = rate
        ours.step(np.array([rate]))
        theirs.step()
        same_weights(network, peer)
        same_state(network, ours, peer, theirs)
    return ours


@at_random
@given(st.sampled_from([1e-3, 1.0, 1e3, 1e6]), seeds)
def test_clipping(kernels, limit, seed):
    """As clip_grad_norm_ leaves the gradients."""
    layers = [(cnn.Dense(3), nn.Linear(5, 3)), (cnn.Dense(2, bias=False), nn.Linear(3, 2, bias=False))]
    network, peer = built(layers, (5,), kernels)
    random = np.random.default_rng(seed)
    for parameter, peers in zip(network.parameters.values(), peer.parameters(), strict=True):
        parameter.grad[...] = of_any_size(random, parameter.shape)
        peers.grad = torch.tensor(parameter.grad)
    cnn.ClipNorm(limit).apply(network)
    nn.utils.clip_grad_norm_(peer.parameters(), limit)
    for parameter, peers in zip(network.parameters.values(), peer.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, peers.grad.numpy(), rtol=1e-12)


@at_random
@given(optimizers(), seeds)
def test_ten_steps(kernels, drawn, seed):
    follow(kernels, drawn, [drawn[1]["learning_rate"]] * 10, seed)


@at_random
@given(optimizers(), st.lists(st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0]), min_size=10, max_size=10), seeds)
def test_a_learning_rate_that_changes_every_step(kernels, drawn, rates, seed):
    follow(kernels, drawn, rates, seed)


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0), (0.999, 0.9), (0.99999, 0.999999)])
def test_the_moments_zero_start_over_a_thousand_steps(kernels, kind, betas):
    settings = {"learning_rate": 0.001, "betas": betas, "weight_decay": 0.01}
    ours = follow(kernels, (kind, settings), [0.001] * 1000)
    np.testing.assert_allclose(ours.state["powers"], np.power(betas, 1000), rtol=TOLERANCE)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_without_epsilon(kernels, kind):
    settings = {"learning_rate": 0.01, "epsilon": 0.0}
    follow(
        kernels, (kind, settings), [0.01] * 10, gradients=lambda random, shape: random.standard_normal(shape)
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("odd", [1e200, 1e-310, np.nan, np.inf, -np.inf])
@at_random
@given(optimizers())
def test_odd_gradients(kernels, odd, drawn):
    # PyTorch's Adam takes infinity from infinity in its mean; here that happens in the weights, right after
    assume(np.isfinite(odd) or drawn[0] == "SGD")
    follow(kernels, drawn, [0.1], gradients=lambda random, shape: random.choice([1.0, odd, -0.0], shape))
