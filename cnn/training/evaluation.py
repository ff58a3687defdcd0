"""The loss, the accuracy and other metrics of a network on a data set."""

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

from cnn.data import augmentation
from cnn.data.augmentation import Augmentation, views
from cnn.data.checked import numbered
from cnn.data.dataset import Dataset
from cnn.data.feed import Feed
from cnn.data.inference import Inference, answers, with_fitting_batches
from cnn.data.sharding import WHOLE, Sharding
from cnn.network import EVALUATION_BATCH, Network
from cnn.support.arguments import flag, instance, whole
from cnn.support.errors import DataError
from cnn.support.origin import call
from cnn.support.text import short
from cnn.training.losses import BCEWithLogits, BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from cnn.training.metrics import Metric, ShardTotals, Totals, require_measurable, require_metrics


def evaluate(
    network: Network,
    data: Dataset,
    loss: Loss | None = None,
    batch_size: int = EVALUATION_BATCH,
    tta: str | None = None,
    metrics: Sequence[Metric] = (),
    graph: bool = True,
) -> dict[str, Any]:
    """{"loss": mean loss, "accuracy": share of right answers} of ``network`` on ``data``.

    The results of ``metrics`` are added. There is no accuracy if the images have no single class.
    ``loss=None`` is the one that :func:`fit` would take; ``tta`` and ``graph`` are as in
    :meth:`Sequential.predict`. If memory runs out, the batch size is halved. Raises ShapeError or DataError
    if data and network do not fit.
    """
    instance("network", network, Network, "cnn.models.lenet5()").require_built()
    metrics = require_metrics(metrics)
    flag("graph", graph)
    with network.backend.active():
        loss = make_loss(network, copy(loss), data)  # a training run may use it, whose arrays stay
        feed = make_feed(network, data, batch_size, loss=loss, tta=tta)
        require_measurable(metrics, data)
        totals = Totals(network, loss, metrics, data.has_accuracy)
        Evaluation(network, feed, loss, totals.of(0)).run(graph)
        return totals.read()


def make_loss(network: Network, loss: Loss | None, data: Dataset | None = None) -> Loss:
    """``loss``, ready for ``network``.

    None is CrossEntropy, or BinaryCrossEntropy for probabilities; BCEWithLogits if the images of ``data``
    have several labels, MeanSquaredError if they have other targets.
    """
    if loss is None:
        loss = _usual_loss(network, data)
    instance("loss", loss, Loss, "cnn.CrossEntropy()").build(network)
    return loss


def _usual_loss(network: Network, data: Dataset | None) -> Loss:
    if isinstance(data, Dataset) and not data.classes:
        return MeanSquaredError()
    if network.gives_probabilities:
        return BinaryCrossEntropy()
    return BCEWithLogits() if isinstance(data, Dataset) and not data.has_accuracy else CrossEntropy()


class Evaluation:
    """Computes the sums of losses and metrics over all batches of ``feed``, in inference.

    What the device records of a batch in one run is repeated in later runs.
    """

    def __init__(self, network: Network, feed: Feed, loss: Loss, totals: ShardTotals) -> None:
        self._network = network
        self._feed = feed
        self._totals = totals
        step = partial(_add_batch, network, feed, loss, totals)
        self._inference = Inference(feed, step, totals.arrays)

    def run(self, may_record: bool = True) -> None:
        """Write the sums of now to ``totals``."""

        def result() -> None:
            self._totals.reset()
            for _ in self._inference.batches(may_record):
                pass

        with_fitting_batches(self._network, self._feed, result)


def _add_batch(network: Network, feed: Feed, loss: Loss, totals: ShardTotals) -> None:
    """Add the sums of the current batch to ``totals``."""
    y, targets = answers(network, feed)
    call(loss.forward, y, targets, sums=totals.sums, weights=feed.weights)
    totals.add(y, targets, loss.shares)


def _require_same_classes(network: Network, data: Dataset) -> None:
    """Raise DataError if the network and the data count classes of the same names in different orders."""
    if data.classes == numbered(len(data.classes)):
        return
    own = {name: number for number, name in enumerate(network.class_names or ())}
    for number, name in enumerate(data.classes):
        if own.get(name, number) != number:
            raise DataError(
                f"class {short(name, 30)!r} has the label {number} in {data!r}, but {own[name]} in the "
                "network's training set: give both the same classes: Dataset(images, labels, train.classes)"
            )


def make_feed(
    network: Network,
    data: Dataset,
    batch_size: int = EVALUATION_BATCH,
    stream: bool | None = None,
    parts: int = 1,
    loss: Loss | None = None,
    rates: int = 1,
    augment: Sequence[Augmentation] = (),
    seed: int = 0,
    tta: str | None = None,
    sharding: Sharding = WHOLE,
) -> Feed:
    """``data`` for the network's device; ShapeError or DataError if they or the ``loss`` do not fit.

    The images are changed by the augmentations, which draw from ``seed``.
    """
    require_suitable(network, data, loss, augment)
    return feed_of(
        network, data, batch_size, stream, parts, rates, augment, seed, views(tta), sharding=sharding
    )


def require_suitable(
    network: Network, data: Dataset, loss: Loss | None = None, augment: Sequence[Augmentation] = ()
) -> None:
    """Raise ShapeError or DataError unless ``network``, ``data``, ``loss`` and the augmentations fit."""
    instance("data", data, Dataset, "cnn.data.Dataset(images, labels)")
    network.check_images(data.images)
    _require_same_classes(network, data)
    (loss or Loss()).require_suitable(data, network, mixed=any(each.mixes for each in augment))
    augmentation.require_suitable(augment, data)


def feed_of(
    network: Network,
    data: Dataset,
    batch_size: int = EVALUATION_BATCH,
    stream: bool | None = None,
    parts: int = 1,
    rates: int = 1,
    augment: Sequence[Augmentation] = (),
    seed: int = 0,
    further_views: Sequence[Augmentation] = (),
    sharding: Sharding = WHOLE,
) -> Feed:
    """``data`` for the network's device, without checks."""
    return Feed(
        network.backend, network.dtype, data.images, data.targets, whole("batch_size", batch_size), stream,
        parts, network.preprocessing, data.weights, rates, augment, seed, network.output_shape[0],
        further_views, sharding,
    )  # fmt: skip
