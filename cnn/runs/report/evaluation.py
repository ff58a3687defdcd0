"""The evaluation of a trained network on its test set, saved as one data file for the report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from backends.interoperability import to_host
from backends.memory import Array
from cnn.data import Dataset
from cnn.data.inference import answers as outputs
from cnn.data.inference import with_fitting_batches
from cnn.data.samples import picked
from cnn.inspection.activations import as_batch, watch
from cnn.inspection.timing import LayerTime, Spread, time_layers
from cnn.layers.layer import Layer
from cnn.network import Network
from cnn.runs.folder import WEIGHTS
from cnn.runs.report.histogram import Histogram
from cnn.saving.weights import read
from cnn.support.arguments import whole
from cnn.support.errors import CheckpointError
from cnn.support.files import leaves, to_json, write_whole
from cnn.support.libraries import require
from cnn.support.tensors import METADATA
from cnn.support.text import printable, short
from cnn.training.evaluation import make_feed, make_loss
from cnn.training.metrics import Totals, all_metrics, figures

VERSION = 1
MOST_MISTAKES = 16
LOOKED_AT = 256  # images for the histograms of activations
LARGEST = 1e39  # larger than any float32


@dataclass(frozen=True)
class Mistakes:
    """Misclassified test images, sorted by the probability of the true class; host arrays."""

    positions: Any  # positions in the test set: (M,), int64
    images: Any  # (M, C, H, W), as in the test set
    labels: Any  # (M,), int64
    predicted: Any  # (M,), int64
    probabilities: Any  # (M, K), float64


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`examine`."""

    loss: float
    accuracy: float
    count: int  # test images
    confusion: Any  # (K, K), int64: a row for each true class, a column for each predicted one
    mistakes: Mistakes
    activations: list[Histogram]  # of the outputs of each layer that does arithmetic
    times: list[LayerTime]  # in training steps
    batch_size: int  # of those steps
    weights: str = "last"  # the weights that were tested: "last" or "best"
    epoch: int | None = None  # of the best weights, if known
    metrics: dict[str, float] = field(default_factory=dict)  # further results; none in files of version 0.1

    @property
    def result(self) -> dict[str, Any]:
        """The test results, and the weights they belong to if not the last."""
        figures = {"loss": self.loss, "accuracy": self.accuracy, "count": self.count}
        return figures if self.weights == "last" else figures | {"weights": self.weights, "epoch": self.epoch}

    def save(self, path: str | Path) -> None:
        """Write the evaluation to ``path``, atomically."""
        serialize = require("safetensors.numpy", "to save the test results").save
        facts = {
            "version": VERSION,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "count": self.count,
            "activations": [[h.layer, h.low, h.high, h.zeros] for h in self.activations],
            "times": [[t.layer, _plain(t.forward), _plain(t.backward)] for t in self.times],
            "batch_size": self.batch_size,
            "weights": self.weights,
            "epoch": self.epoch,
            "metrics": self.metrics,
        }
        arrays = {f"mistakes.{name}": np.ascontiguousarray(a) for name, a in vars(self.mistakes).items()}
        arrays |= {
            f"activations.{number}": histogram.counts for number, histogram in enumerate(self.activations)
        }
        arrays["confusion"] = self.confusion
        write_whole(path, serialize(arrays, {METADATA: to_json(facts)}))

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Load the evaluation in ``path``; CheckpointError if it is damaged or of another kind."""
        arrays, metadata = read(path)
        try:
            facts = json.loads(metadata[METADATA])
            if facts["version"] != VERSION:
                raise ValueError(f"its version is {facts['version']}, expected {VERSION}")
            for leaf in leaves(facts):
                if isinstance(leaf, int | float) and not abs(leaf) < LARGEST:  # NaN is not
                    raise ValueError(f"{leaf} is not a valid loss, count or time")
            confusion = _array(arrays, "confusion", ndim=2, kinds="iu")
            if confusion.shape[0] != confusion.shape[1]:
                raise ValueError(f"confusion is {confusion.shape}, expected a square")
            return cls(
                loss=nan if facts["loss"] is None else float(facts["loss"]),
                accuracy=float(facts["accuracy"]),
                count=int(facts["count"]),
                confusion=confusion,
                mistakes=_mistakes(arrays, classes=len(confusion)),
                activations=[
                    Histogram(
                        printable(str(layer)),
                        _array(arrays, f"activations.{n}", 1, "iu"),
                        *map(float, figures),
                    )
                    for n, (layer, *figures) in enumerate(facts["activations"])
                ],
                times=[
                    LayerTime(printable(str(layer)), _spread(forward), _spread(backward))
                    for layer, forward, backward in facts["times"]
                ],
                batch_size=int(facts["batch_size"]),
                weights=_one_of(WEIGHTS, facts.get("weights", "last")),
                epoch=None if facts.get("epoch") is None else int(facts["epoch"]),
                metrics={
                    printable(str(name)): float(value)
                    for name, value in dict(facts.get("metrics", {})).items()
                },
            )
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            what = short(f"it lacks {error}" if isinstance(error, KeyError) else str(error), 200)
            raise CheckpointError(
                f"{path} is not an evaluation of a run, or it is damaged ({what}): delete it; "
                "the report works without it"
            ) from None


def examine(network: Network, test_set: Dataset, batch_size: int = 128, tta: str | None = None) -> Evaluation:
    """Test a trained network, and examine its activations and the time of its layers.

    Everything runs on the network's device. The weights are unchanged, but the gradients are overwritten:
    layers are timed in training steps on ``batch_size`` test images, or fewer if there are fewer. ``tta`` is
    as in :meth:`Sequential.predict`.

    Raises ShapeError or DataError if the network and the data do not match.
    """
    whole("batch_size", batch_size)
    test_set.require_classes("the report")
    with network.backend.active():
        totals, predicted, probabilities = _answers(network, test_set, tta)
        labels, classes = test_set.labels, probabilities.shape[1]
        pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
        return Evaluation(
            loss=totals["loss"],
            accuracy=totals["accuracy"],
            count=len(test_set),
            confusion=pairs.reshape(classes, classes),
            mistakes=_worst(test_set, predicted, probabilities),
            activations=_activations(network, test_set),
            times=_times(network, test_set, batch_size),
            batch_size=min(batch_size, len(test_set)),
            metrics={name: value for name, value in totals.items() if name not in ("loss", "accuracy")},
        )


def _answers(network: Network, test_set: Dataset, tta: str | None) -> tuple[dict[str, float], Any, Any]:
    """({"loss", "accuracy", ...}, predicted classes (N,), probabilities (N, K)), on the host."""
    backend, xp = network.backend, network.backend.xp
    feed = make_feed(network, test_set, tta=tta)
    loss = make_loss(network, None)
    totals = Totals(network, loss, all_metrics(network.output_shape[0]))
    sums = totals.of(0)

    def answers() -> tuple[dict[str, float], Any, Any]:
        totals.reset()
        predicted, probabilities = [], []
        for _ in feed.batches():
            y, labels = outputs(network, feed)
            loss.forward(y, labels, sums=sums.sums)
            sums.add(y, labels, None)
            predicted.append(backend.to_host(xp.argmax(y, axis=0)))
            probabilities.append(backend.to_host(network.probabilities(y)).T.astype(np.float64))
        return figures(totals.read()), np.concatenate(predicted), np.concatenate(probabilities)

    return with_fitting_batches(network, feed, answers)


def _worst(test_set: Dataset, predicted: Any, probabilities: Any) -> Mistakes:
    wrong = np.flatnonzero(predicted != test_set.labels)
    of_the_truth = probabilities[wrong, test_set.labels[wrong]]
    worst = wrong[np.argsort(of_the_truth, kind="stable")[:MOST_MISTAKES]]
    images = to_host(picked(test_set.images, worst))
    return Mistakes(worst, images, test_set.labels[worst], predicted[worst], probabilities[worst])


def _activations(network: Network, test_set: Dataset) -> list[Histogram]:
    """Histograms of the outputs of every layer that does arithmetic, for images spread over the test set."""
    found: list[Histogram] = []

    def keep(layer: Layer, y: Array) -> None:
        found.append(Histogram.of(layer.label, network.backend.to_host(y)))

    every = slice(None, None, -(-len(test_set) // LOOKED_AT))
    watch(network, as_batch(network, test_set.images[every]), keep)
    return found


def _times(network: Network, test_set: Dataset, batch_size: int) -> list[LayerTime]:
    first = Dataset(test_set.images[:batch_size], test_set.labels[:batch_size])
    ((x, labels),) = make_feed(network, first, batch_size)
    return time_layers(network, make_loss(network, None), x, labels)


def _mistakes(arrays: dict[str, Any], classes: int) -> Mistakes:
    """The mistakes in a file, after consistency checks."""
    mistakes = Mistakes(
        positions=_array(arrays, "mistakes.positions", ndim=1, kinds="iu"),
        images=_array(arrays, "mistakes.images", ndim=4, kinds="uf"),
        labels=_array(arrays, "mistakes.labels", ndim=1, kinds="iu"),
        predicted=_array(arrays, "mistakes.predicted", ndim=1, kinds="iu"),
        probabilities=_array(arrays, "mistakes.probabilities", ndim=2, kinds="f"),
    )
    lengths = {len(array) for array in vars(mistakes).values()}
    named = np.isin([mistakes.labels, mistakes.predicted], np.arange(classes)) if len(lengths) == 1 else False
    if mistakes.probabilities.shape[1] != classes or not np.all(named):
        raise ValueError("the arrays of the mistakes do not match")
    return mistakes


def _array(arrays: dict[str, Any], name: str, ndim: int, kinds: str) -> Any:
    array = arrays[name]
    if array.ndim != ndim or 0 in array.shape[1:] or array.dtype.kind not in kinds:
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    return array


def _one_of(words: Sequence[str], word: Any) -> str:
    if word not in words:
        raise ValueError(f"{word!r} is not one of {', '.join(words)}")
    return str(word)


def _spread(seconds: list[float] | None) -> Spread | None:
    return None if seconds is None else Spread(*map(float, seconds))


def _plain(spread: Spread | None) -> list[float] | None:
    return None if spread is None else [spread.median, spread.low, spread.high]
