"""Whether training changes a layer: one flag, set by its constructor or by :meth:`Network.freeze`."""

from collections.abc import Mapping
from typing import Any

from cnn.support.arguments import flag
from cnn.support.errors import ArgumentError


class Trainable:
    """A layer that can be frozen: training then leaves its parameters and statistics unchanged."""

    built: bool
    path: str
    frozen = False  # whether training leaves the layer as it is

    @property
    def trainable(self) -> bool:
        """Whether training changes the layer; the constructor sets it, later ``net.freeze`` does."""
        return not self.frozen

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        if self.built:
            raise ArgumentError(
                f"layer {self.path} {type(self).__name__} has its place in a network, which decides what is "
                f'trained: call net.freeze("{self.path}") or net.unfreeze("{self.path}")'
            )
        self.frozen = not flag(f"{type(self).__name__}: trainable", trainable)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters by name."""
        raise NotImplementedError

    @property
    def is_trained(self) -> bool:
        """Whether it has parameters that training changes."""
        return any(not parameter.frozen for parameter in self.parameters.values())
