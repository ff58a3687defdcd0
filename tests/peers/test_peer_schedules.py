"""Schedules beside torch.optim.lr_scheduler's."""

from math import ceil

import numpy as np
from helpers.twins import at_random, given, nn, scheduler_of, st, torch

from cnn.training import schedules
from cnn.training.preparation import learning_rates

base_rates, ends, counts = st.floats(1e-4, 10), st.floats(0, 1), st.integers(1, 12)


def same_rates(schedule, base, epochs, steps):
    """Compare the learning rates of all steps of a run."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], base)
    scheduler = scheduler_of(schedule, optimizer, epochs * steps)
    for epoch in range(epochs):
        for rate in learning_rates(base, schedule, epoch, epochs, steps):
            theirs = optimizer.param_groups[0]["lr"]
            np.testing.assert_allclose(rate, theirs, rtol=1e-12, atol=1e-12 * base)
            for _ in range(2):
                optimizer.step()
                scheduler.step()


@st.composite
def warm_ups(draw, epochs, steps):
    """A share of the run in which the rate rises: none, or some half steps, but not all."""
    halves = 2 * epochs * steps
    return draw(st.sampled_from([0, *range(2, halves)])) / halves


@at_random
@given(base_rates, counts, counts, st.data())
def test_constant(base, epochs, steps, data):
    same_rates(schedules.Constant(data.draw(warm_ups(epochs, steps))), base, epochs, steps)


@at_random
@given(base_rates, ends, counts, counts, st.data())
def test_linear(base, end, epochs, steps, data):
    same_rates(schedules.Linear(data.draw(warm_ups(epochs, steps)), end=end), base, epochs, steps)


@at_random
@given(base_rates, ends, counts, counts, st.data())
def test_cosine(base, end, epochs, steps, data):
    same_rates(schedules.Cosine(data.draw(warm_ups(epochs, steps)), end=end), base, epochs, steps)


@at_random
@given(base_rates, ends, counts, counts, st.data())
def test_step_by_step(base, factor, epochs, steps, data):
    """Warm-up and drops after whole steps."""
    total = epochs * steps
    warm = data.draw(st.integers(0, total - 1))
    every = data.draw(st.integers(1, total - warm))
    schedule = schedules.Step(warm / total, every=every / (total - warm), factor=factor)
    same_rates(schedule, base, epochs, steps)


@at_random
@given(base_rates, ends, st.integers(1, 100), st.floats(0.01, 1))
def test_drops_after_any_share_of_the_run(base, factor, steps, every):
    """Each drop is from the first step on whose middle lies behind it."""
    drops = [n * every * steps - 0.5 for n in range(1, ceil(1 / every) + 1)]
    if any(abs(drop - round(drop)) < 1e-9 for drop in drops):
        return  # in the very middle of a step
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], base)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [ceil(drop) for drop in drops], factor)
    for rate in learning_rates(base, schedules.Step(every=every, factor=factor), 0, 1, steps):
        np.testing.assert_allclose(rate, optimizer.param_groups[0]["lr"], rtol=1e-12, atol=1e-12 * base)
        optimizer.step()
        scheduler.step()
