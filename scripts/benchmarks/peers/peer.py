"""What a peer is: a network in training and inference, in one library."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class Absent(Exception):
    """A peer that cannot run here; the message is the reason."""


class Peer(ABC):
    """Made from a :class:`peers.task.Task`: it starts from its weights and goes through its batches."""

    @abstractmethod
    def step(self) -> Any:
        """Gather a batch, forward, loss, backward, update; -> the loss, or each image's."""

    @abstractmethod
    def infer(self) -> Any:
        """The output for the first batch, which is ready as floats."""

    @abstractmethod
    def probabilities(self) -> Any:
        """What :meth:`infer` says: (N, classes)."""

    def synchronize(self) -> None:  # noqa: B027 - may stay as it is
        """Wait until the device has done all that it was given; a step on the CPU leaves nothing to do."""

    def to_host(self, array: Any) -> Any:
        """What :meth:`step` or :meth:`infer` gave, as a NumPy array."""
        return np.asarray(array)

    def gradients(self) -> dict[str, Any]:
        """Of the latest step, by PyTorch's names; none where the library hands none out."""
        return {}

    def weights(self) -> dict[str, Any]:
        """As they are now, by PyTorch's names; none where the update is meant to be another."""
        return {}


def softmax(logits: Any) -> Any:
    """Probabilities: (N, classes) -> (N, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
