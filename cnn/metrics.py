"""Sums over many batches that stay on the device until they are read."""

from cnn.layers.buffers import Array
from cnn.network import Sequential


class Totals:
    """The loss and the accuracy over all samples since the last reset."""

    def __init__(self, network: Sequential) -> None:
        self.backend = network.backend
        self._sums = self.backend.xp.zeros(2, dtype=self.backend.xp.float64)  # losses, correct answers
        self.count = 0

    def reset(self) -> None:
        """Start again."""
        self._sums.fill(0)
        self.count = 0

    def add(self, losses: Array, y: Array, labels: Array) -> None:
        """Count a batch: its losses (N,), the network's outputs (classes, N) and the labels (N,)."""
        self.backend.kernels.tally(losses, y, labels, self._sums)
        self.count += len(labels)

    def read(self) -> dict[str, float]:
        """{"loss": mean loss, "accuracy": share of correct answers}; waits for the device."""
        loss, correct = self.backend.to_host(self._sums)
        return {"loss": float(loss) / self.count, "accuracy": float(correct) / self.count}
