"""Batches of images: gathering, augmentation and mixing. Declared first, then in plain ``xp``."""

from backends.kernels import augmentation
from backends.kernels.arithmetic import ArithmeticKernels, PortableArithmeticKernels
from backends.kernels.augmentation import GAIN, OFFSET, SHARE, TARGET_SHARE, Pixels, Program
from backends.memory import Array, temporaries


class BatchKernels(ArithmeticKernels):
    """The declarations; a kernel set overrides what it computes faster."""

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        """``chosen`` (k, n) = the next columns of ``order`` (k, count): what each row has for these samples.

        ``chosen_labels`` (n,) = the labels of the samples that the first row names, if there are any.
        ``rate`` = the row of this step in ``rates``, (steps,) or (steps, m).
        ``cursor`` (2,) counts the samples and steps that are done, and advances; the order repeats after its
        end.
        """
        raise NotImplementedError

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        """``out`` = ``(images[indices] - shift) * scale``: (N, ...) -> (..., n).

        ``shift`` and ``scale`` (C,) are those of each channel of (N, C, H, W); None: bytes are scaled to
        0..1.
        """
        raise NotImplementedError

    def draw(
        self, samples: Array, keys: Array, program: Program, table: Array, size: tuple[int, int], drawn: Array
    ) -> None:
        """``drawn`` (k, rows, n) = what the ``program`` draws from its ``table`` for ``samples`` (k, n).

        A draw is a hash in unsigned 32-bit integers of a key, the sample and the number of the step.
        ``keys`` (3,) are a key of the epoch, a key of the whole run, and the epoch; ``size`` is (H, W).
        :mod:`backends.kernels.augmentation` says what a program is, and what is drawn.
        """
        raise NotImplementedError

    def augment_batch(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        """:meth:`gather_batch` of images that are moved, brightened and erased as was ``drawn``.

        Outside of an image there are zeros, or its mirror image with ``reflect``. Without ``smooth`` pixels
        move by whole pixels, otherwise values are interpolated at 256 positions between two pixels.
        """
        raise NotImplementedError

    def augment_pairs(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        """:meth:`augment_batch`, then :meth:`mix_batch`: ``indices`` (2, n), ``drawn`` (2, rows, n).

        The first row has the images, the second row the images that they are mixed with.
        """
        others = self.scratch("others", out.shape, out.dtype)
        for place, chosen, mine in zip((out, others), indices, drawn, strict=True):
            self.augment_batch(images, chosen, mine, reflect, smooth, shift, scale, place)
        self.mix_batch(out, others, drawn[0])

    def mix_batch(self, x: Array, others: Array, drawn: Array) -> None:
        """``x`` = its mixture with the samples ``others``, as was ``drawn`` for ``x``."""
        raise NotImplementedError

    def mix_targets(self, own: Array, others: Array, drawn: Array, out: Array) -> None:
        """``out`` (classes, n) = the mixture of the targets: labels (n,) or numbers (classes, n)."""
        raise NotImplementedError


class PortableBatchKernels(PortableArithmeticKernels, BatchKernels):
    """The same in plain ``xp``, for every device."""

    def next_batch(
        self, cursor: Array, order: Array, labels: Array | None, rates: Array, chosen: Array,
        chosen_labels: Array | None, rate: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        n = chosen.shape[1]
        (positions,) = temporaries(self.device, ((n,), cursor.dtype))
        xp.add(xp.arange(n), cursor[:1], out=positions)
        xp.remainder(positions, order.shape[1], out=positions)
        for row, place in zip(order, chosen, strict=True):
            self.device.take(row, positions, out=place)
        if labels is not None:
            self.device.take(labels, chosen[0], out=chosen_labels)
        step = xp.remainder(cursor[1:], len(rates))
        self.device.take(rates.reshape(len(rates), -1), step, out=rate.reshape(1, -1))
        cursor[:1] += n
        cursor[1:] += 1

    def gather_batch(
        self, images: Array, indices: Array, out: Array, shift: Array | None = None,
        scale: Array | None = None,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        (chosen,) = temporaries(self.device, ((len(indices), *images.shape[1:]), images.dtype))
        self.device.take(images, indices, out=chosen)
        out[...] = xp.moveaxis(chosen, 0, -1)
        if shift is not None and scale is not None:
            xp.subtract(out, shift.reshape(-1, 1, 1, 1), out=out)
            xp.multiply(out, scale.reshape(-1, 1, 1, 1), out=out)
        elif images.dtype == xp.uint8:
            xp.multiply(out, 1 / 255, out=out)

    def draw(
        self, samples: Array, keys: Array, program: Program, table: Array, size: tuple[int, int], drawn: Array
    ) -> None:
        xp = self.device.xp
        drawn.fill(0)
        for mine, some in zip(drawn, samples, strict=True):
            for place in (0, 4, GAIN, SHARE):
                mine[place] = 1
            draws = augmentation.Draws(xp, some, keys)
            for number, step in enumerate(program):
                augmentation.change(xp, mine, step, *draws.row(number, step, table))
            augmentation.share_targets(xp, mine, size)

    def augment_batch(
        self, images: Array, indices: Array, drawn: Array, reflect: bool, smooth: bool, shift: Array,
        scale: Array, out: Array,
    ) -> None:  # fmt: skip
        xp = self.device.xp
        pixels = Pixels(self.device, images, out, reflect, smooth)
        pixels.locate(drawn, indices)
        gain, offset = drawn[GAIN].astype(out.dtype), drawn[OFFSET].astype(out.dtype)
        for number in range(len(out)):
            channel = out[number]
            xp.multiply(pixels.channel(number), gain, out=channel)
            xp.add(channel, offset, out=channel)
            xp.subtract(channel, shift[number : number + 1], out=channel)
            xp.multiply(channel, scale[number : number + 1], out=channel)
        (erased,) = temporaries(self.device, (out.shape[1:], xp.bool_))
        for box in range(1, (len(drawn) - augmentation.BOXES) // 4):
            xp.logical_not(augmentation.inside_box(xp, drawn, box, erased), out=erased)
            xp.multiply(out, erased, out=out)

    def mix_batch(self, x: Array, others: Array, drawn: Array) -> None:
        xp = self.device.xp
        cut, work = temporaries(self.device, (x.shape[1:], xp.bool_), (x.shape, x.dtype))
        augmentation.inside_box(xp, drawn, 0, cut)
        share = drawn[SHARE].astype(x.dtype)
        xp.multiply(others, 1 - share, out=work)
        xp.multiply(x, share, out=x)
        xp.add(x, work, out=x)
        xp.copyto(x, others, where=cut)

    def mix_targets(self, own: Array, others: Array, drawn: Array, out: Array) -> None:
        xp = self.device.xp
        share = drawn[TARGET_SHARE].astype(out.dtype)
        (work,) = temporaries(self.device, (out.shape, out.dtype))
        for targets, part, place in ((own, share, out), (others, 1 - share, work)):
            if targets.ndim == 1:
                self._one_hot(targets, place)
            else:
                place[...] = targets
            xp.multiply(place, part, out=place)
        xp.add(out, work, out=out)
