"""Parameter groups: which parameters an optimizer updates together, and with which settings."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from backends.memory import Array, Shape
from cnn.layers.layer import Parameter
from cnn.network import Network
from cnn.support.arguments import number, shown
from cnn.support.errors import ArgumentError, Notice
from cnn.support.text import some_of


def is_vector(name: str, shape: Shape) -> bool:
    """Whether a parameter is a bias, or the weight of a normalization; for ``Group(is_vector, ...)``."""
    return len(shape) < 2 or name.endswith("bias")


@dataclass(frozen=True)
class Group:
    """Parameters that an optimizer treats differently; the first group that fits a parameter counts.

    Parameters
    ----------
    select : str or function
        A pattern of names such as "0.*" or "*.bias", or a function of a parameter's name and shape.
    rate : float
        Factor of the learning rate.
    weight_decay : float
        None: that of the optimizer.
    """

    select: str | Callable[[str, Shape], bool]
    rate: float = 1.0
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.select, str) and not callable(self.select):
            raise ArgumentError(
                f'select is {shown(self.select)}, expected a pattern of names such as "*.bias", or a '
                "function of a parameter's name and shape"
            )
        object.__setattr__(self, "rate", number("rate", self.rate))
        if self.weight_decay is not None:
            object.__setattr__(self, "weight_decay", number("weight_decay", self.weight_decay))

    def fits(self, parameter: Parameter) -> bool:
        """Whether ``parameter`` belongs to the group."""
        if isinstance(self.select, str):
            return fnmatchcase(parameter.name, self.select)
        return bool(self.select(parameter.name, parameter.shape))

    @property
    def description(self) -> str:
        """The group as text, which is the same in every process."""
        select = (
            self.select if isinstance(self.select, str) else getattr(self.select, "__qualname__", "function")
        )
        return f"{select}: rate {self.rate:g}, weight_decay {self.weight_decay}"


EVERYTHING = Group("*")


@dataclass(frozen=True)
class Part:
    """Parameters that an optimizer updates in one call, as views of the flat vectors."""

    group: Group
    value: Array
    grad: Array
    state: Mapping[str, Array]  # views of the vectors, by the optimizer's names
    shape: Shape  # of the parameter, if it is a single one
    rate: Array  # for the group's learning rate, if it is not the optimizer's


def cut(
    network: Network, groups: Sequence[Group], vectors: Mapping[str, Array], by_parameter: bool
) -> list[Part]:
    """The trained parameters of ``network`` in as few parts as their groups allow; frozen ones are left out.

    ``vectors`` are the optimizer's. ``by_parameter``: a part for each parameter.
    """
    runs: list[tuple[Group, list[Parameter]]] = []
    parameters = network.parameters.values()
    apart = True
    for parameter in parameters:
        if parameter.frozen:
            apart = True
            continue
        group = next((group for group in groups if group.fits(parameter)), EVERYTHING)
        if apart or runs[-1][0] is not group:
            runs.append((group, []))
        runs[-1][1].append(parameter)
        apart = by_parameter
    parts = []
    for group, members in runs:
        place = slice(members[0].place.start, members[-1].place.stop)
        if len(members) == len(parameters) > 1:
            place = slice(None)  # with the padding at the end, as a contiguous vector
        state = {name: vector[place] for name, vector in vectors.items()}
        flat, rate = network.flat, network.backend.zeros(1, network.master_dtype)
        parts.append(Part(group, flat.value[place], flat.grad[place], state, members[0].shape, rate))
    return parts


def warn_of_unused(groups: Sequence[Group], network: Network) -> None:
    """Warn of patterns that are the name of no parameter, because they may be misspelled."""
    parameters = network.parameters.values()
    for group in groups:
        if isinstance(group.select, str) and not any(group.fits(parameter) for parameter in parameters):
            names = some_of([parameter.name for parameter in parameters])
            warnings.warn(
                f"the group {shown(group.select)} fits no parameter and has no effect: the names are {names}",
                Notice,
                stacklevel=7,
            )


def two_betas(betas: Any) -> tuple[float, float]:
    """``betas`` if they are two numbers from 0 to 1."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ArgumentError(f"betas is {shown(betas)}, expected two numbers such as (0.9, 0.999)")
    return number("betas[0]", betas[0], below=1), number("betas[1]", betas[1], below=1)
