"""Feed: gives each training step its images (batch last), targets and learning rate, on the device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from backends import Backend
from backends.graph import recordable
from backends.memory import Array, Buffers
from cnn.data.augmentation import Augmentation, Augmenter
from cnn.data.preprocessing import Preprocessing
from cnn.data.readers.mapped import ReadAhead
from cnn.data.samples import Samples
from cnn.data.sharding import WHOLE, Shard, Sharding
from cnn.data.sources import Resident, Streamed, is_too_large, stored_dtype
from cnn.support.dtypes import master_of

ENOUGH_TO_RECORD = 8  # batches: recording a step takes as long as a few


class Feed:
    """Gives out a data set batch by batch, always in the same device arrays.

    A batch is ``x`` (C, H, W, n) in ``dtype``, with bytes scaled to 0..1 and then the ``preprocessing`` of
    the network, and its targets: labels (n,), or numbers (..., n) with bytes scaled to 0..1. If ``dtype`` has
    16 bits, only the images have, and targets, weights and rates are float32. Both are valid
    until the next batch, as are ``weights``, those of the latest batch. The last batch of an epoch holds the
    remaining samples. The position in the epoch is on the device too, in ``cursor``, so that :meth:`gather`
    is the same kernel calls every time.

    A batch can be given out in ``parts``, one :meth:`gather` for each, so that it needs less memory. With
    ``sharding``, each batch is cut into shards, and the feed gives out those of this process, each in as many
    parts.

    ``stream=True`` leaves the data on the host and copies batches while the device computes, ``False`` puts
    all of it on the device, and None decides by its size.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        images: Any,
        targets: Any,
        batch_size: int,
        stream: bool | None = None,
        parts: int = 1,
        preprocessing: Preprocessing | None = None,
        weights: Any = None,
        rates: int = 1,
        augment: Sequence[Augmentation] = (),
        seed: int = 0,
        classes: int = 0,
        views: Sequence[Augmentation] = (),
        sharding: Sharding = WHOLE,
    ) -> None:
        self.backend = backend
        self._dtype, self._master_dtype = dtype, master_of(dtype)  # of images, and of other numbers
        self._parts = parts
        self._sharding = sharding
        self._shape = images.shape[1:]
        data = Samples(images, targets, weights)
        self.streamed = is_too_large(backend, data, dtype) if stream is None else stream
        kind = Streamed if self.streamed else Resident
        self._source: Resident | Streamed = kind(backend, data, dtype)
        on_host = self.streamed or self._source.stored.images is images
        self._ahead = ReadAhead(images if on_host else None)
        stored = stored_dtype(images, dtype)
        self._augmenter: Augmenter | None = None
        self._labels = data.targets if data.has_labels else None
        self._classes = classes
        self._views = [Augmenter(backend, [view], self._shape, stored) for view in views]
        if augment:
            self._augmenter = Augmenter(backend, augment, self._shape, stored, seed)
        if augment or views:
            preprocessing = preprocessing or Preprocessing.none(self._shape[0])
        self._normalization: tuple[Array, ...] = ()  # shift and scale of each channel
        if preprocessing is not None:
            shift_and_scale = preprocessing.arrays(stored, self._master_dtype)
            self._normalization = tuple(map(backend.asarray, shift_and_scale))
        with backend.active():
            self.cursor = backend.zeros(2, np.int64)  # samples, steps
            self.rate = backend.zeros(rates, self._master_dtype)  # of the latest batch
        self.weights: Array | None = None  # of the latest batch's samples; None: they count alike
        self._count = len(images)
        self._divide(min(batch_size, len(images)))
        with backend.active():
            own = int(self._starts[-1])
            self._order = backend.zeros(own, np.int64)
            self._orders = {name: backend.zeros(own, np.int64) for name in self._names_of_orders()}
        self._arrange()

    def _divide(self, batch_size: int) -> None:
        """Divide the samples into batches of this size, and these into shards and parts."""
        self.batch_size = self.size = batch_size  # size: of the current batch
        self._largest_shard = -(-batch_size // self._sharding.count)
        self._part = -(-self._largest_shard // self._parts)
        self._sizes = _cut(self._count, batch_size)
        self._spans = {size: self._sharding.span(size) for size in set(self._sizes)}
        own = [self._spans[size][1] - self._spans[size][0] for size in self._sizes]
        self._starts = np.cumsum([0, *own])  # of each batch, in the order of this process's samples
        counts = {size: self._count_parts(size) for size in self._spans}
        self._rows = [max(1, counts[size]) for size in self._sizes]  # rates of each batch

    def _arrange(self) -> None:
        """Prepare to give out these batches, from the first one on."""
        self._buffers = Buffers(self.backend, self._master_dtype)
        shape = sum(self._rows), len(self.rate)
        self._rates = self.backend.zeros(prod(shape), self._master_dtype).reshape(shape)
        self._source.cut(np.diff(self._starts).tolist())
        self.start(np.arange(self._count))

    def halve(self) -> None:
        """Give out batches of half the size from now on, and free the memory of the larger ones."""
        self._divide(self.batch_size // 2)
        self._arrange()

    def start(self, order: Any, rates: Any = None, epoch: int = 0) -> None:
        """Start an epoch, from 0, with the samples in this order and a row of rates for each step."""
        self._samples = self._own_samples(np.asarray(order))
        places = self._source.place(self._samples)
        self.backend.asarray(places, out=self._order)
        if self._augmenter is not None:
            self._augmenter.start(epoch)
            self._send_orders(places)
        if rates is not None:
            rows = np.reshape(np.repeat(rates, self._rows, axis=0), self._rates.shape)
            self.backend.asarray(rows, out=self._rates)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self._sizes)

    def batches(self, first: int = 0) -> Iterator[int]:
        """The numbers of an epoch's batches, from ``first`` on; each is gathered when its number comes."""
        self.cursor[:1].fill(int(self._starts[first]))
        self.cursor[1:].fill(sum(self._rows[:first]))
        self._source.begin(first)
        try:
            with self._ahead.epoch():
                for number, size in enumerate(self._sizes[first:], first):
                    self.size = size
                    self._ahead.expect(self._samples_of(number + 1))
                    self._source.arrive(number)
                    yield number
                    self._source.send(number + 1)
        except BaseException:  # the caller stops early: a copy in progress must not reach the next epoch
            with suppress(Exception):
                self._source.finish()
            raise

    def repeat(self, step: Callable[[], None], state: Sequence[Array] = ()) -> Iterator[None]:
        """Call ``step``, which is made of kernels, for each batch; the device repeats whole batches."""
        pays = len(self) >= ENOUGH_TO_RECORD
        repeated = self.backend.graph(recordable(step), [self.cursor, *state]) if pays else step
        for _ in self.batches():
            (repeated if self.size == self.batch_size else step)()
            yield

    @property
    def has_parts(self) -> bool:
        """Whether batches are given out in parts."""
        return self._part < self._largest_shard

    @property
    def shards(self) -> list[Shard]:
        """This process's shards of the current batch."""
        return [
            Shard(number, first, _cut(size, self._part))
            for number, first, size in self._sharding.cut(self.size)
        ]

    def skip(self) -> None:
        """Take the learning rate of a batch in which all shards of this process are empty."""
        nothing = self._buffers.view("chosen", (0,), np.int64)
        self.backend.kernels.next_batch(self.cursor, self._order, None, self._rates, nothing, None, self.rate)

    def gather(self, size: int | None = None) -> tuple[Array, Array | None]:
        """The current batch, or its next part of ``size`` samples: images and targets.

        If images are mixed, the targets are shares of the classes: (classes, n).
        """
        size = size or self.size
        x = self._buffers.view("x", (*self._shape, size), self._dtype)
        chosen = self._buffers.view("chosen", (size,), np.int64)
        kernels, source = self.backend.kernels, self._source.stored
        labels = self._buffers.view("labels", (size,), np.int64) if source.has_labels else None
        ours = source.targets if source.has_labels else None
        upcoming = {name: self._buffers.view(name, (size,), np.int64) for name in self._orders}
        for name, order in self._orders.items():
            kernels.next_samples(self.cursor, order, upcoming[name])
        kernels.next_batch(self.cursor, self._order, ours, self._rates, chosen, labels, self.rate)
        self.weights = self._chosen("weights", source.weights, chosen)
        targets = self._chosen("targets", source.targets, chosen) if labels is None else labels
        if self._augmenter is None:
            kernels.gather_batch(source.images, chosen, x, *self._normalization)
            return x, targets
        drawn = self._augmented(self._augmenter, "drawn", chosen, upcoming.get("samples", chosen), x)
        if self._augmenter.mixes:
            targets = self._mix(self._augmenter, x, targets, drawn, upcoming)
        return x, targets

    @property
    def views(self) -> int:
        """How many views of each image there are: the image itself, and those of test-time augmentation."""
        return 1 + len(self._views)

    def view(self, number: int) -> Array:
        """The images of the latest batch, from one of the views after the first."""
        x = self._buffers.view("x", (*self._shape, self.size), self._dtype)
        chosen = self._buffers.view("chosen", (self.size,), np.int64)
        self._augmented(self._views[number - 1], "drawn", chosen, chosen, x)
        return x

    def _augmented(self, augmenter: Augmenter, name: str, chosen: Array, samples: Array, x: Array) -> Array:
        """``x`` = the chosen images, augmented; -> what was drawn for them, in the buffer ``name``."""
        images = self._source.stored.images
        return augmenter.gather(images, chosen, samples, self._normalization, self._buffers, name, x)

    def _mix(
        self, augmenter: Augmenter, x: Array, targets: Array, drawn: Array, upcoming: dict[str, Array]
    ) -> Array:
        """Mix ``x`` with its partners; -> the mixed targets (classes, n)."""
        kernels, partners = self.backend.kernels, upcoming["partners"]
        others = self._buffers.view("others", x.shape, self._dtype)
        self._augmented(
            augmenter, "others drawn", partners, upcoming.get("partner samples", partners), others
        )
        kernels.mix_batch(x, others, drawn)
        other_targets = upcoming.get("partner labels")
        if other_targets is None:
            other_targets = self._chosen("partner targets", self._source.stored.targets, partners)
        mixed = self._buffers.view("mixed targets", (self._classes, len(partners)))
        kernels.mix_targets(targets, other_targets, drawn, mixed)
        return mixed

    def _names_of_orders(self) -> list[str]:
        """What augmentation needs on the device, in the order of the epoch.

        These are the positions in the data set, unless all images lie on the device in that order, and the
        partners that images are mixed with.
        """
        names = []
        if self._augmenter and self.streamed:
            names.append("samples")
        if self._augmenter and self._augmenter.mixes:
            names += ["partners", *["partner samples"] * self.streamed]
            names += ["partner labels"] * (self._labels is not None)
        return names

    def _send_orders(self, places: Any) -> None:
        """Bring what augmentation needs to the device; ``places`` has the places of the images there."""
        pairs = _pairs([size for batch in self._sizes for _, _, size in self._sharding.cut(batch)])
        partners = self._samples[pairs]
        values = {"samples": self._samples, "partners": places[pairs], "partner samples": partners}
        if self._labels is not None:
            values["partner labels"] = self._labels[partners]
        for name, order in self._orders.items():
            self.backend.asarray(values[name], out=order)

    def _chosen(self, name: str, stored: Array | None, chosen: Array) -> Array | None:
        """The chosen ones of these numbers for each sample, batch last."""
        if stored is None:
            return None
        out = self._buffers.view(name, (*stored.shape[1:], len(chosen)))
        self.backend.kernels.gather_batch(stored, chosen, out)
        return out

    def __iter__(self) -> Iterator[tuple[Array, Array | None]]:
        for _ in self.batches():
            yield self.gather()

    def _count_parts(self, batch: int) -> int:
        return sum(len(_cut(size, self._part)) for _, _, size in self._sharding.cut(batch))

    def _own_samples(self, order: Any) -> Any:
        """This process's part of each batch, in the same order."""
        if self._sharding.count == 1:
            return order
        starts = range(0, len(order), self.batch_size)
        spans = (self._spans[size] for size in self._sizes)
        parts = [order[a + start : a + stop] for a, (start, stop) in zip(starts, spans, strict=True)]
        return np.concatenate(parts)

    def _samples_of(self, number: int) -> Any:
        """This process's samples of batch ``number``; none if there is no such batch."""
        edges = self._starts[number : number + 2]
        return self._samples[slice(*edges)] if len(edges) == 2 else self._samples[:0]


def _cut(count: int, size: int) -> list[int]:
    """``count`` cut into pieces of ``size``; the last one has the rest."""
    whole, rest = divmod(count, size)
    return [size] * whole + [rest] * (rest > 0)


def _pairs(sizes: Sequence[int]) -> Any:
    """For each position in an epoch of batches of these sizes, the one that it is mixed with.

    It is the neighbour in the same batch, or in the same shard of it.
    """
    counts = np.array(sizes, dtype=np.int64)
    first, size = np.repeat(np.cumsum(counts) - counts, counts), np.repeat(counts, counts)
    place = np.arange(len(first)) - first
    other = place ^ 1
    return first + np.where(other < size, other, np.maximum(place - 1, 0))
