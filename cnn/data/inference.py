"""Inference on all batches of a feed."""

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from backends import graph
from backends.memory import Array
from cnn.data.feed import Feed
from cnn.support.errors import OutOfMemory, out_of_memory

ENOUGH_TO_RECORD = 8  # batches: recording a step takes as long as a few
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


class Inference:
    """Calls ``step`` for each batch of a feed, in one epoch after another.

    The step is made of kernels, and changes the arrays in ``state``. If there are enough whole batches, the
    device records the step for one of them and repeats it for the others, in later epochs too.
    """

    def __init__(self, feed: Feed, step: Callable[[], None], state: Sequence[Array] = ()) -> None:
        self.feed = feed
        self._step = graph.recordable(partial(step))
        self._state = [feed.cursor, *state]
        self._repeated = self._step
        self._recorded_size = 0

    def batches(self, may_record: bool = True) -> Iterator[None]:
        """Go through all batches; yields when the step has been taken for a batch."""
        records = may_record and self.feed.whole_batches >= ENOUGH_TO_RECORD
        for _ in self.feed.batches():
            is_whole = self.feed.size == self.feed.batch_size
            (self._recorded() if records and is_whole else self._step)()
            yield

    def _recorded(self) -> Callable[[], None]:
        """The step as the device repeats it for batches of the present size."""
        if self._recorded_size != self.feed.batch_size:
            self._recorded_size = self.feed.batch_size
            self._repeated = self.feed.backend.graph(self._step, self._state)
        return self._repeated


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
        network.context.arena.release()
        feed.halve()
