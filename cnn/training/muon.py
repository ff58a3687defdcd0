"""Muon: orthogonal updates for matrices."""

from collections.abc import Sequence

from backends.memory import Array
from cnn.support.arguments import flag, number, whole
from cnn.support.errors import ArgumentError
from cnn.training.groups import Group, Part
from cnn.training.optimizers import SGD

MOST_FACTOR = 1e9


class Muon(SGD):
    """Muon (Jordan et al. 2024) for convolutions and dense weights, and SGD for the other parameters.

    The gradient with momentum of a weight, as a matrix (O, C * KH * KW), is replaced by the nearest
    orthogonal matrix, as in PyTorch's Muon. The weight decay of matrices is decoupled. Other parameters,
    such as biases, are trained by SGD with the same momentum.

    Parameters
    ----------
    learning_rate : float
        The learning rate of the matrices.
    other_rate : float
        The learning rate of the other parameters; the schedule applies to both.
    momentum, nesterov, weight_decay
        As in :class:`SGD`.
    steps : int
        Newton-Schulz iterations.
    hidden_only : bool
        Train the last weight matrix that is not frozen, usually the classifier's, by SGD like the other
        parameters.
    unit_rows : bool
        Before each step, scale each matrix to the norm of an orthogonal one, sqrt(O), so that its rows have
        norms around 1 (Jordan 2024, "airbench94_muon"). A weight decay of matrices then has no effect.
    """

    # a step uses the ratio of the two learning rates
    setting_names = (*SGD.setting_names, "learning_rate", "other_rate", "steps", "hidden_only", "unit_rows")
    by_parameter = True

    def __init__(
        self,
        learning_rate: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        other_rate: float = 0.05,
        steps: int = 5,
        groups: Sequence[Group] = (),
        hidden_only: bool = False,
        unit_rows: bool = False,
    ) -> None:
        super().__init__(learning_rate, momentum, nesterov, weight_decay, groups)
        self.state_names = ("velocity",)
        self.other_rate = number("other_rate", other_rate)
        self.steps = whole("steps", steps)
        self.hidden_only = flag("hidden_only", hidden_only)
        self.unit_rows = flag("unit_rows", unit_rows)
        if self.other_factor > MOST_FACTOR:
            raise ArgumentError(
                f"learning_rate is {learning_rate:g} and other_rate is {other_rate:g}, expected a "
                f"learning_rate that is 0 or at least 1 / {MOST_FACTOR:g} of other_rate"
            )

    @property
    def other_factor(self) -> float:
        """The learning rate of the other parameters is this factor times that of the matrices."""
        return self.other_rate / self.learning_rate if self.learning_rate else 0.0

    def update(self, part: Part, rate: Array, weight_decay: float) -> None:
        kernels = self.backend.kernels
        if len(part.shape) < 2 or (self.hidden_only and part is self._last_matrix):
            kernels.scale(rate, self.other_factor, part.rate)
            super().update(part, part.rate, weight_decay)
            return
        arrays = part.value, part.grad, part.state["velocity"]
        value, grad, velocity = (array.reshape(part.shape[0], -1) for array in arrays)
        momentum = self._present_momentum
        if self.unit_rows:
            kernels.scale_to_norm(value, len(value) ** 0.5)
            weight_decay = 0.0
        kernels.muon(value, grad, velocity, rate, momentum, self.nesterov, weight_decay, self.steps)

    def _cut(self) -> None:
        super()._cut()
        self._last_matrix = next((part for part in reversed(self._parts) if len(part.shape) > 1), None)
