"""Sums over many samples, which stay on the device until they are read."""

from collections.abc import Sequence
from copy import copy
from math import nan
from typing import Any

import numpy as np

from backends.memory import Array, Shape
from cnn.network import Network
from cnn.support.arguments import instance, shown, whole
from cnn.support.errors import ArgumentError, DataError
from cnn.support.origin import call
from cnn.training.losses import Loss


class Metric:
    """A measure of how right the answers are, for data whose images have one class each.

    ``sums`` are on the device. To write one, override :meth:`shape`, :meth:`add` and :meth:`result`.
    """

    @property
    def name(self) -> str:
        """A name of its own, such as "top_5"."""
        return type(self).__name__

    def build(self, network: Network) -> None:
        """Prepare for the outputs of ``network``, a number for each class."""
        self.network, self.backend = network, network.backend
        xp = self.backend.xp
        self.sums = xp.zeros(self.shape(network.output_shape[0]), dtype=xp.float64)

    def shape(self, classes: int) -> Shape:
        """The shape of the sums, in float64."""
        raise NotImplementedError

    def add(self, y: Array, targets: Array, shares: Array | None) -> None:
        """Add a batch to the sums: outputs (classes, N), and labels (N,) or probabilities (classes, N).

        Samples whose share is 0 do not count; None: all do.
        """
        raise NotImplementedError

    def result(self, sums: Any) -> dict[str, Any]:
        """The results for sums on the host, by name; floats become part of the history."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or pickle, without the data of a network."""
        return {k: v for k, v in vars(self).items() if k not in ("network", "backend", "sums")}


class TopK(Metric):
    """top_5: how often the label is among the ``k`` classes with the highest outputs."""

    def __init__(self, k: int = 5) -> None:
        self.k = whole("k", k)

    @property
    def name(self) -> str:
        return f"top_{self.k}"

    def shape(self, classes: int) -> Shape:
        return (2,)

    def add(self, y: Array, targets: Array, shares: Array | None) -> None:
        self.backend.kernels.count_top(y, targets, self.k, self.sums, shares)

    def result(self, sums: Any) -> dict[str, Any]:
        right, count = map(float, sums)
        return {self.name: right / count if count else nan}


class Confusion(Metric):
    """confusion: how often each class was answered, with a row for each true class, as lists."""

    def shape(self, classes: int) -> Shape:
        return (classes, classes)

    def add(self, y: Array, targets: Array, shares: Array | None) -> None:
        self.backend.kernels.count_pairs(y, targets, self.sums, shares)

    def result(self, sums: Any) -> dict[str, Any]:
        return {"confusion": sums.astype(int).tolist()}


class F1(Confusion):
    """precision, recall and f1, the means over the classes, and per_class with those of each.

    As in scikit-learn, a share of nothing is 0, and classes that neither occur nor are answered are left out
    of the means ("macro"). ``per_class`` is a list in the order of the classes.
    """

    def result(self, sums: Any) -> dict[str, Any]:
        right, answered, occurs = np.diag(sums), sums.sum(axis=0), sums.sum(axis=1)
        rates = {
            "precision": _share(right, answered),
            "recall": _share(right, occurs),
            "f1": _share(2 * right, answered + occurs),
        }
        known = (answered + occurs) > 0
        means = {name: float(rate[known].mean()) if known.any() else nan for name, rate in rates.items()}
        columns = rates | {"count": occurs.astype(int)}
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return {**means, "per_class": [dict(zip(columns, row, strict=True)) for row in rows]}


class CalibrationError(Metric):
    """calibration_error: how far the highest probability is from how often it is right.

    The expected calibration error of Guo et al. 2017: the mean of these differences in ``bins`` bins of
    the highest probability, weighted with their samples.
    """

    def __init__(self, bins: int = 15) -> None:
        self.bins = whole("bins", bins)

    def shape(self, classes: int) -> Shape:
        return (3, self.bins)

    def add(self, y: Array, targets: Array, shares: Array | None) -> None:
        p = self.network.probabilities(y)
        self.backend.kernels.count_confidence(p, targets, self.sums, shares)

    def result(self, sums: Any) -> dict[str, Any]:
        count, confidence, right = sums
        error = float(abs(confidence - right).sum() / count.sum()) if count.sum() else nan
        return {"calibration_error": error}


class ShardTotals:
    """What the samples of one shard add to a :class:`Totals`."""

    def __init__(self, sums: Array, metrics: Sequence[Metric]) -> None:
        self.sums = sums
        self._metrics = metrics

    def add(self, y: Array, targets: Array, shares: Array | None) -> None:
        """Add a batch to the metrics; the loss adds the rest to ``sums`` itself."""
        for metric in self._metrics:
            call(metric.add, y, targets, shares)

    @property
    def arrays(self) -> list[Array]:
        """All of its sums on the device."""
        return [self.sums, *(metric.sums for metric in self._metrics)]

    def reset(self) -> None:
        """Start again."""
        for array in self.arrays:
            array.fill(0)


class Totals:
    """The loss, the accuracy and further metrics over all samples since the last reset.

    ``sums`` are on the device, and losses add to them: summed losses, right answers, samples; and for a loss
    whose mean is weighted, the sum of the weights, and the samples that have one.

    With several ``shards``, each has sums of its own, which are added in the order of the shards when they
    are read. So the results do not depend on which process has computed which shard.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss | None = None,
        metrics: Sequence[Metric] = (),
        has_accuracy: bool = True,
        shards: int = 1,
    ) -> None:
        self.backend = network.backend
        size = 5 if loss is not None and loss.has_shares else 3
        self._is_sharded = shards > 1
        self.sums = self._zeros(shards, (size,))
        self.count = 0  # samples at the last read
        self._has_accuracy = has_accuracy
        self._metrics = {metric.name: copy(metric) for metric in metrics}
        for metric in self._metrics.values():
            metric.build(network)
            if self._is_sharded:
                metric.sums = self._zeros(shards, metric.sums.shape)
        self._shards = [self._of(shard) for shard in range(shards)]

    def _zeros(self, shards: int, shape: Shape) -> Array:
        xp = self.backend.xp
        return xp.zeros((shards, *shape) if self._is_sharded else shape, dtype=xp.float64)

    def _of(self, shard: int) -> ShardTotals:
        if not self._is_sharded:
            return ShardTotals(self.sums, list(self._metrics.values()))
        metrics = [copy(metric) for metric in self._metrics.values()]
        for metric, all_shards in zip(metrics, self._metrics.values(), strict=True):
            metric.network, metric.backend = all_shards.network, all_shards.backend
            metric.sums = all_shards.sums[shard]
        return ShardTotals(self.sums[shard], metrics)

    @property
    def arrays(self) -> dict[str, Array]:
        """All sums on the device, by name; with several shards, the first axis counts these."""
        return {"totals": self.sums} | {
            f"totals/{name}": metric.sums for name, metric in self._metrics.items()
        }

    def of(self, shard: int) -> ShardTotals:
        """The sums of one shard."""
        return self._shards[shard]

    def reset(self) -> None:
        """Start again."""
        for array in self.arrays.values():
            array.fill(0)
        self.count = 0

    def read(self) -> dict[str, Any]:
        """{"loss": mean loss, "accuracy": share of right answers, ...} or NaN; waits for the device."""
        loss, right, count, *shares = map(float, self._on_host(self.sums))
        self.count = int(count)
        total, counted = shares or (count, count)
        result: dict[str, Any] = {"loss": loss / total if total else nan}
        if self._has_accuracy:
            result["accuracy"] = right / counted if counted else nan
        for metric in self._metrics.values():
            result |= metric.result(self._on_host(metric.sums))
        return result

    def _on_host(self, sums: Array) -> Any:
        """The sums over all shards."""
        found = self.backend.to_host(sums)
        return found.sum(axis=0) if self._is_sharded else found


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The results that are single numbers, for the history."""
    return {name: value for name, value in result.items() if isinstance(value, float)}


def require_metrics(metrics: Any) -> list[Metric]:
    """``metrics`` as a list; ArgumentError if they are no different metrics."""
    if not isinstance(metrics, Sequence) or isinstance(metrics, str):
        raise ArgumentError(f"metrics is {shown(metrics)}, expected a list such as [cnn.metrics.TopK(5)]")
    names = [instance("metrics", metric, Metric, "cnn.metrics.TopK(5)").name for metric in metrics]
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError(f"metrics has {name} twice: name each metric once")
    return list(metrics)


def require_measurable(metrics: Sequence[Metric], data: Any) -> None:
    """Raise DataError unless the images of ``data`` have one class each, or there are no metrics."""
    if metrics and not data.has_accuracy:
        raise DataError(
            f"the metric {metrics[0].name} needs a class for each image, which {data!r} does not have: "
            "leave metrics out"
        )


def all_metrics(classes: int, k: int = 5) -> list[Metric]:
    """Every metric that makes sense for so many classes; top-k accuracy only if there are more than ``k``."""
    return [*([TopK(k)] if classes > k else []), F1(), Confusion(), CalibrationError()]


def _share(part: Any, whole: Any) -> Any:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
