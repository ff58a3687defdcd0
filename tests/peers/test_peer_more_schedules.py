"""One cycle, plateau, polynomial, exponential and restarts next to torch.optim.lr_scheduler's."""

import numpy as np
import pytest
from helpers.twins import nn, torch

from cnn.training import schedules

scheduler = torch.optim.lr_scheduler
STEPS = 101


def peer(rate=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], rate, momentum=0.95)


def factors(made, optimizer, name="lr"):
    """The rates of PyTorch at the beginning of each step."""
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0][name])
        optimizer.step()
        made.step()
    return found


PROGRESS = np.arange(STEPS) / STEPS


def test_polynomial():
    optimizer = peer()
    theirs = factors(scheduler.PolynomialLR(optimizer, STEPS, power=3), optimizer)
    np.testing.assert_allclose([schedules.Polynomial(power=3)(at) for at in PROGRESS], theirs, atol=1e-12)


def test_exponential():
    optimizer = peer()
    theirs = factors(scheduler.ExponentialLR(optimizer, 0.01 ** (1 / STEPS)), optimizer)
    np.testing.assert_allclose([schedules.Exponential(end=0.01)(at) for at in PROGRESS], theirs, rtol=1e-12)


@pytest.mark.parametrize(("length", "growth"), [(34, 1), (14, 2)])
def test_cosine_with_restarts(length, growth):
    """Cycles of 34, 34 and 34 steps, and of 14, 28 and 56."""
    optimizer = peer()
    made = scheduler.CosineAnnealingWarmRestarts(optimizer, length, growth, eta_min=0.1)
    theirs = factors(made, optimizer)
    whole = sum(length * growth**cycle for cycle in range(3))
    ours = [schedules.Cosine(end=0.1, restarts=2, growth=growth)(step / whole) for step in range(STEPS)]
    boundaries = length, length * (1 + growth)  # where rounding decides
    kept = [step for step in range(min(STEPS, whole)) if step not in boundaries]
    np.testing.assert_allclose(np.take(ours, kept), np.take(theirs, kept), atol=1e-9)


@pytest.mark.parametrize("name", ["lr", "momentum"])
def test_one_cycle(name):
    """PyTorch counts steps from 0 to the last one, ours take the share of the run."""
    optimizer = peer()
    made = scheduler.OneCycleLR(optimizer, 1.0, total_steps=STEPS + 1)
    theirs = factors(made, optimizer, name)
    schedule = schedules.OneCycle(peak=(0.3 * (STEPS + 1) - 1) / STEPS)
    ours = schedule if name == "lr" else schedule.momentum
    scale = 1 if name == "lr" else 0.95
    np.testing.assert_allclose([scale * ours(at) for at in PROGRESS], theirs, atol=1e-12)


@pytest.mark.parametrize(("metric", "mode"), [("validation_loss", "min"), ("validation_accuracy", "max")])
def test_plateau(metric, mode):
    optimizer = peer()
    made = scheduler.ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=2, threshold=0.01, min_lr=0.1)
    schedule = schedules.Plateau(factor=0.5, patience=2, threshold=0.01, least=0.1, metric=metric)
    history = []
    for value in np.random.default_rng(0).random(60) * np.linspace(1, 0.2, 60):
        history.append({metric: value})
        made.step(value)
        assert schedule.reduction(history) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert schedule.reduction(history) == pytest.approx(0.1)
