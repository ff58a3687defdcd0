"""The evaluation of the validation set after each epoch."""

from collections.abc import Mapping
from typing import Any

from cnn.data.feed import Feed
from cnn.network import Network
from cnn.training.evaluation import Evaluation
from cnn.training.losses import Loss
from cnn.training.metrics import Totals
from cnn.training.run import Run


class Validator:
    """Evaluates the validation set of a training run, with what the device recorded in earlier epochs.

    ``feeds`` has the batches of each of this process's shards, and ``totals`` the sums of all shards.
    ``graph`` is that of ``fit``.
    """

    def __init__(
        self, network: Network, loss: Loss, feeds: Mapping[int, Feed], totals: Totals, graph: bool
    ) -> None:
        self._totals = totals
        self._graph = graph
        self._evaluations = [
            Evaluation(network, feed, loss, totals.of(shard)) for shard, feed in feeds.items()
        ]

    def result(self, run: Run) -> dict[str, Any]:
        """The loss, the accuracy and the metrics."""
        self._totals.reset()
        for evaluation in self._evaluations:
            evaluation.run(self._graph and run.training.failure is None)  # one note on a failure is enough
        run.agreement.collect(self._totals)
        return self._totals.read()
