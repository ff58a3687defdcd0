"""Layers and parameters that training leaves as they are."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from backends.memory import Array
from cnn.layers.sequential import Sequential
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError
from cnn.support.text import some_of


class Freezable(Sequential):
    """Layers in sequence whose parameters and statistics can be frozen."""

    frozen_names: tuple[str, ...] = ()  # of frozen parameters and statistics

    @property
    def arrays(self) -> dict[str, Array]:
        """What files keep of the network: the parameters' values and the statistics by name."""
        return {name: parameter.value for name, parameter in self.parameters.items()} | self.statistics

    def freeze(self, *names: str) -> None:
        """Let training leave these parameters and statistics as they are.

        ``names`` are those of layers, such as "0" or "3.1", with the layers inside them, or of parameters,
        such as "0.weight", or patterns of either such as "2.*". A frozen BatchNorm normalizes with its
        running statistics. ArgumentError if nothing has such a name, or if it is that of a statistic, which
        is only frozen together with its whole layer.
        """
        frozen = {*self.frozen_names, *self._find(names)}
        for name in sorted(frozen - self._with_whole_layers(frozen)):
            raise ArgumentError(
                f"{name} is a statistic, which is frozen together with its layer: "
                f'freeze("{name.rpartition(".")[0]}") freezes both'
            )
        self._set_frozen(frozen)

    def unfreeze(self, *names: str) -> None:
        """Let training change these parameters and statistics again; ``names`` as in :meth:`freeze`.

        The statistics of a layer change again as soon as one of its parameters does.
        """
        self._set_frozen(self._with_whole_layers(set(self.frozen_names) - set(self._find(names))))

    def _freeze_untrainable(self) -> None:
        """Freeze the layers that were made with ``trainable=False``."""
        frozen = [layer for layer in self.walk() if layer.frozen]
        self.freeze(*(layer.path for layer in frozen if layer.own_parameters or layer.statistics))

    def _with_whole_layers(self, frozen: set[str]) -> set[str]:
        """``frozen`` without the statistics of layers that are only frozen in part."""
        partly = {name.rpartition(".")[0] for name in self.arrays if name not in frozen}
        return {name for name in frozen if name in self.parameters or name.rpartition(".")[0] not in partly}

    def _find(self, patterns: Sequence[str]) -> Iterator[str]:
        """The names of the parameters and statistics that the patterns are about."""
        for pattern in patterns:
            found = [name for name in self.arrays if isinstance(pattern, str) and _is_about(pattern, name)]
            if not found:
                raise ArgumentError(
                    f"there is no layer or parameter {shown(pattern)}, expected one of {some_of(self.arrays)}"
                )
            yield from found

    def _set_frozen(self, frozen: set[str]) -> None:
        self.frozen_names = tuple(name for name in self.arrays if name in frozen)
        for layer in self.walk():
            own = [name for name in self.arrays if name.rpartition(".")[0] == layer.path]
            layer.frozen = bool(own) and frozen.issuperset(own)
        for name, parameter in self.parameters.items():
            parameter.frozen = name in frozen

    def clear_frozen(self) -> None:
        """Set the gradients of frozen parameters to 0."""
        if self.frozen_names:
            for parameter in self.parameters.values():
                if parameter.frozen:
                    self.backend.kernels.clear(parameter.grad)


def _is_about(pattern: str, name: str) -> bool:
    """Whether the name of a parameter or statistic is ``pattern``, or that of something inside it."""
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
