"""The gradients of the small networks, held against finite differences."""

from collections.abc import Iterator
from functools import partial

from backends import Backend
from cnn.inspection.gradient_check import TOLERANCE, check_gradients
from cnn.selftest.cases import NETWORKS, Example
from cnn.selftest.checks import Check
from cnn.support.errors import DisagreementError

ENTRIES = 12  # tried in each array


def checks(backend: Backend) -> Iterator[Check]:
    """A check for each network."""
    for example in NETWORKS:
        yield Check(example.name, partial(_check, example, backend))


def _check(example: Example, backend: Backend) -> None:
    """Raise DisagreementError at the first array whose gradient is wrong."""
    network = example.network()
    network.build(example.input_shape, backend=backend, dtype="float64")
    for result in check_gradients(network, entries=ENTRIES):
        if not result.passed:
            raise DisagreementError(
                f"the gradient of {result.name} is off by {result.error:.1e}, "
                f"expected less than {TOLERANCE:.0e}"
            )
