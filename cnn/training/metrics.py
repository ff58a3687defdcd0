"""Sums over many batches, which stay on the device until they are read."""

from math import nan

from cnn.network import Network


class Totals:
    """The loss and the accuracy over all samples since the last reset.

    ``sums`` are on the device, and losses add to them: summed losses, correct answers, samples.
    """

    def __init__(self, network: Network) -> None:
        self.backend = network.backend
        self.sums = self.backend.xp.zeros(3, dtype=self.backend.xp.float64)
        self.count = 0  # samples at the last read

    def reset(self) -> None:
        """Start again."""
        self.sums.fill(0)
        self.count = 0

    def read(self) -> dict[str, float]:
        """{"loss": mean loss, "accuracy": share of correct answers} or NaN; waits for the device."""
        loss, correct, count = map(float, self.backend.to_host(self.sums))
        self.count = int(count)
        if not self.count:
            return {"loss": nan, "accuracy": nan}
        return {"loss": loss / count, "accuracy": correct / count}
