"""The loss and the accuracy of a network on a data set."""

from collections.abc import Sequence

from cnn.data.augmentation import Augmentation, views
from cnn.data.dataset import Dataset
from cnn.data.feed import Feed
from cnn.network import EVALUATION_BATCH, Network
from cnn.support.arguments import instance, whole
from cnn.support.errors import DataError
from cnn.support.origin import call
from cnn.training.losses import BinaryCrossEntropy, CrossEntropy, Loss
from cnn.training.metrics import Totals


def evaluate(
    network: Network,
    data: Dataset,
    loss: Loss | None = None,
    batch_size: int = EVALUATION_BATCH,
    tta: str | None = None,
) -> dict[str, float]:
    """{"loss": mean loss, "accuracy": share of right answers} of ``network`` on ``data``.

    ``loss=None`` is the one that :func:`fit` would take; ``tta`` is as in :meth:`Sequential.predict`. If
    memory runs out, the batch size is halved. Raises ShapeError or DataError if data and network do not fit.
    """
    instance("network", network, Network, "cnn.models.lenet5()").require_built()
    with network.backend.active():
        feed = make_feed(network, data, batch_size, tta=tta)
        return totals_of(network, feed, make_loss(network, loss))


def make_loss(network: Network, loss: Loss | None) -> Loss:
    """``loss``, ready for ``network``; None is CrossEntropy, or BinaryCrossEntropy for probabilities."""
    if loss is None:
        loss = BinaryCrossEntropy() if network.gives_probabilities else CrossEntropy()
    instance("loss", loss, Loss, "cnn.CrossEntropy()").build(network)
    return loss


def totals_of(network: Network, feed: Feed, loss: Loss) -> dict[str, float]:
    """The loss and the accuracy of ``network`` on all batches of ``feed``."""
    totals = Totals(network)

    def step() -> None:
        y, labels = network.answers(feed)
        call(loss.forward, y, labels, sums=totals.sums)

    def result() -> dict[str, float]:
        totals.reset()
        for _ in feed.repeat(step, [totals.sums]):
            pass
        return totals.read()

    return network.with_fitting_batches(feed, result)


def make_feed(
    network: Network,
    data: Dataset,
    batch_size: int = EVALUATION_BATCH,
    stream: bool | None = None,
    parts: int = 1,
    rates: int = 1,
    augment: Sequence[Augmentation] = (),
    seed: int = 0,
    tta: str | None = None,
) -> Feed:
    """``data`` for the network's device; ShapeError or DataError where the two do not fit.

    The images are changed by the augmentations, which draw from ``seed``.
    """
    batch_size = whole("batch_size", batch_size)
    instance("data", data, Dataset, "cnn.data.Dataset(images, labels)")
    network.check_images(data.images)
    highest, classes = data.labels.max(), network.output_shape[0]
    if highest >= classes:
        raise DataError(
            f"the labels go up to {highest}, the network's output has {classes} classes; "
            f"give its last layer {highest + 1} outputs or take fewer classes"
        )
    return Feed(
        network.backend, network.dtype, data.images, data.labels, batch_size, stream, parts,
        network.preprocessing, rates=rates, augment=augment, seed=seed, classes=classes,
        views=views(tta),
    )  # fmt: skip
