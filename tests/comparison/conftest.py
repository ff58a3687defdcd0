"""Comparisons that are over in a moment."""

import pytest

import backends
from cnn.comparison import Setup, compare, measure


@pytest.fixture(scope="session")
def quick():
    """Limits under which a comparison takes a second: what is measured stays the same."""
    pytest.importorskip("threadpoolctl")  # the CPU is compared with so many threads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "BATCH_SIZES", (1, 4))
        patch.setattr(measure, "BLOCK", 1e-9)
        patch.setattr(measure, "LONG_ENOUGH", 0)
        patch.setattr(measure, "LAUNCHES", 2)
        patch.setattr(measure, "SWEEP_TURNS", 2)
        patch.setattr(measure, "SLOW", 1000)  # on a busy machine too
        patch.setattr(measure, "SLOWEST", 1000)
        patch.setattr(measure, "PAUSE", 0)
        yield


@pytest.fixture(scope="session")
def result(quick):
    """Two kernel sets, compared for real."""
    two = [Setup(backends.get("cpu", kernels), 1) for kernels in ("portable", "signal")]
    return compare(two, model="notebook", batch_size=3, rounds=3)


@pytest.fixture(scope="session")
def slow_result(quick):
    """The same, if the second one is too slow for its batch size."""
    two = [Setup(backends.get("cpu", kernels), 1) for kernels in ("portable", "signal")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "SLOW", 0)
        return compare(two, model="notebook", batch_size=3, rounds=1)
