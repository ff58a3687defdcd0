"""Inference on all batches of a feed."""

import gc
from collections.abc import Callable
from typing import Any, TypeVar

from backends import graph
from backends.memory import Array
from cnn.data.feed import Feed
from cnn.support.errors import OutOfMemory, out_of_memory

Result = TypeVar("Result")


def answers(network: Any, feed: Feed) -> tuple[Array, Array | None]:
    """The outputs of a network for the next batch of ``feed`` in inference, and its targets.

    If the feed has several views of each image, these are the mean outputs, not the mean probabilities:
    any loss then gets what it expects.
    """
    x, targets = feed.gather()
    y = network.forward(x)
    if feed.views == 1:
        return y, targets
    kernels, xp = network.backend.kernels, network.backend.xp
    mean = network.buffer("mean output", y.shape, y.dtype)
    kernels.copy(y, mean)
    for number in range(1, feed.views):
        kernels.add(mean, network.forward(feed.view(number)), mean)
    graph.launch(xp.multiply, mean, 1 / feed.views, out=mean)
    return mean, targets


def with_fitting_batches(network: Any, feed: Feed, work: Callable[[], Result]) -> Result:
    """The result of ``work``, an inference of a network on all of ``feed``.

    If memory runs out, the work starts again with batches of half the size. Raises OutOfMemory if even
    a batch of 1 does not fit.
    """
    while True:
        try:
            return work()
        except (OutOfMemory, MemoryError) as error:
            if feed.batch_size == 1:
                advice = "even a batch of 1 does not fit: use another device, or a smaller network"
                raise out_of_memory(error, advice) from error
        gc.collect()  # the error's frames refer to arrays
        network.context.scratch.release()
        feed.halve()
