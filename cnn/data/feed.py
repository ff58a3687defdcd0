"""Feed: gives each training step its images (batch last), targets and learning rate, on the device."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from backends import Backend
from backends.memory import Array, Buffers
from cnn.data.augmentation import Augmentation, Augmenter
from cnn.data.preprocessing import Preprocessing
from cnn.data.readers.mapped import ReadAhead
from cnn.data.samples import Samples
from cnn.data.sharding import WHOLE, Shard, Sharding
from cnn.data.sources import Resident, Streamed, is_too_large, stored_dtype
from cnn.support.dtypes import master_of


class Feed:
    """Gives out a data set batch by batch, always in the same device arrays.

    A batch is ``x`` (C, H, W, n) in ``dtype``, with bytes scaled to 0..1 and then the ``preprocessing`` of
    the network, and its targets: labels (n,), or numbers (..., n) with bytes scaled to 0..1. Both, and
    ``weights``, those of the latest batch, are valid until the next batch. If ``dtype`` has 16 bits, ``x``
    has; targets, weights and rates are float32. The last batch of an epoch holds the remaining samples.
    The position in the epoch is on the device too, in ``cursor``, so that :meth:`gather` is the same kernel
    calls every time.

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
        self._order: Array = None  # made by the first call of start
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
        self._rates_of_batch = [max(1, counts[size]) for size in self._sizes]  # how many rates each takes

    def _arrange(self) -> None:
        """Prepare to give out these batches, from the first one on."""
        self._buffers = Buffers(self.backend, self._master_dtype)
        shape = sum(self._rates_of_batch), len(self.rate)
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
        self._order = self.backend.asarray(self._rows_of_order(), out=self._order)
        if self._augmenter is not None:
            self._augmenter.start(epoch)
        if rates is not None:
            rows = np.reshape(np.repeat(rates, self._rates_of_batch, axis=0), self._rates.shape)
            self.backend.asarray(rows, out=self._rates)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return len(self._sizes)

    def batches(self, first: int = 0) -> Iterator[int]:
        """The numbers of an epoch's batches, from ``first`` on; each is gathered when its number comes."""
        self.cursor[:1].fill(int(self._starts[first]))
        self.cursor[1:].fill(sum(self._rates_of_batch[:first]))
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

    @property
    def whole_batches(self) -> int:
        """The number of batches in an epoch without a last one that is short."""
        return self._sizes.count(self.batch_size)

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
        nothing = self._chosen_rows(0)
        self.backend.kernels.next_batch(self.cursor, self._order, None, self._rates, nothing, None, self.rate)

    def gather(self, size: int | None = None) -> tuple[Array, Array | None]:
        """The current batch, or its next part of ``size`` samples: images and targets.

        If images are mixed, the targets are shares of the classes: (classes, n).
        """
        size = size or self.size
        x = self._buffers.view("x", (*self._shape, size), self._dtype)
        rows = self._chosen_rows(size)
        kernels, source = self.backend.kernels, self._source.stored
        labels = self._buffers.view("labels", (size,), np.int64) if source.has_labels else None
        ours = source.targets if source.has_labels else None
        kernels.next_batch(self.cursor, self._order, ours, self._rates, rows, labels, self.rate)
        chosen = rows[0]
        self.weights = self._chosen("weights", source.weights, chosen)
        targets = self._chosen("targets", source.targets, chosen) if labels is None else labels
        if self._augmenter is None:
            kernels.gather_batch(source.images, chosen, x, *self._normalization)
            return x, targets
        k = 1 + self._mixes
        samples = rows[k : 2 * k] if self.streamed else rows[:k]
        drawn = self._augmented(self._augmenter, rows[:k], samples, x)
        if self._mixes:
            targets = self._mixed_targets(targets, rows, drawn)
        return x, targets

    @property
    def views(self) -> int:
        """How many views of each image there are: the image itself, and those of test-time augmentation."""
        return 1 + len(self._views)

    def view(self, number: int) -> Array:
        """The images of the latest batch, from one of the views after the first."""
        x = self._buffers.view("x", (*self._shape, self.size), self._dtype)
        chosen = self._chosen_rows(self.size)[:1]
        self._augmented(self._views[number - 1], chosen, chosen, x)
        return x

    def _augmented(self, augmenter: Augmenter, chosen: Array, samples: Array, x: Array) -> Array:
        """``x`` = the chosen images, augmented; -> what was drawn for them."""
        images = self._source.stored.images
        return augmenter.gather(images, chosen, samples, self._normalization, self._buffers, x)

    def _mixed_targets(self, targets: Array, rows: Array, drawn: Array) -> Array:
        """The targets of a batch, mixed with those of its partners: (classes, n)."""
        if self._labels is not None:
            others = rows[-1]
        else:
            others = self._chosen("partner targets", self._source.stored.targets, rows[1])
        mixed = self._buffers.view("mixed targets", (self._classes, rows.shape[1]))
        self.backend.kernels.mix_targets(targets, others, drawn, mixed)
        return mixed

    @property
    def _mixes(self) -> bool:
        """Whether each image is mixed with a partner."""
        return self._augmenter is not None and self._augmenter.mixes

    def _rows_of_order(self) -> Any:
        """What the device has for each sample, in the order of the epoch: (rows, samples), on the host.

        These are the places of its image and of its partner, then the positions of both in the data set,
        unless all images are on the device in that order, and the partner's label.
        """
        samples, places = [self._samples], [self._source.place(self._samples)]
        if self._mixes:
            pairs = _pairs([size for batch in self._sizes for _, _, size in self._sharding.cut(batch)])
            samples, places = ([own, own[pairs]] for (own,) in (samples, places))
        rows = places + (samples if self._augmenter is not None and self.streamed else [])
        if self._mixes and self._labels is not None:
            rows.append(self._labels[samples[1]])
        return np.stack(rows, dtype=np.int64)

    def _chosen_rows(self, size: int) -> Array:
        """The part of the order for a batch of this size."""
        return self._buffers.view("chosen", (len(self._order), size), np.int64)

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
