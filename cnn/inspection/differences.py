"""Whether two results are the same but for rounding."""

from typing import Any

import numpy as np

from cnn.network import Network
from cnn.support.errors import DisagreementError


def difference(expected: Any, found: Any) -> float:
    """The largest difference of two host arrays, relative to the largest value in the first."""
    largest = float(np.max(np.abs(expected), initial=0))
    apart = float(np.max(np.abs(expected - found), initial=0))
    return apart / largest if largest else apart


def require_near(what: str, expected: Any, found: Any, allowed: float) -> None:
    """Raise DisagreementError if host arrays differ by more than ``allowed`` of the largest number."""
    if expected.shape != found.shape:
        raise DisagreementError(f"{what} has the shape {found.shape}, expected {expected.shape}")
    apart = difference(expected, found)
    if not apart <= allowed:  # NaN is not
        raise DisagreementError(f"{what} is off by {apart:.1e}, expected at most {allowed:.1e}")


def results(network: Network, x: Any, dy: Any) -> dict[str, Any]:
    """Host copies of the output and of all gradients, for host ``x`` and ``dy``."""
    backend = network.backend
    y = backend.to_host(network.forward(backend.asarray(x), training=True))
    dx = backend.to_host(network.backward(backend.asarray(dy)))
    gradients = {name: backend.to_host(parameter.grad) for name, parameter in network.parameters.items()}
    return {"output": y, "gradient of the input": dx} | {
        f"gradient of {name}": gradient for name, gradient in gradients.items()
    }


def problem_of(error: Exception) -> str:
    """What an error says, on one line; for other errors than DisagreementError, also their type."""
    message = " ".join(str(error).split())
    return message if isinstance(error, DisagreementError) else f"{type(error).__name__}: {message}"
