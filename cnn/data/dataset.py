"""A data set: images, labels and class names, checked once when it is created."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from backends.interoperability import to_host
from backends.memory import Array
from backends.text import did_you_mean
from cnn.data.checked import (
    Classes,
    as_names,
    as_pair,
    as_weights,
    is_whole,
    numbered,
    texts_in,
    with_targets,
)
from cnn.data.layouts import Named, from_texts
from cnn.data.readers.mapped import Place, place
from cnn.data.samples import HostCopy, Samples, picked
from cnn.support.errors import DataError, OutOfMemory
from cnn.support.random import SPLIT, generator
from cnn.support.text import dimensions, some_of

_COMPARED = 64  # images in a fingerprint
_ROUNDING = 1e-3  # of probabilities that add up to 1


class Dataset:
    """Images, and what a network should give for each of them: a class, or any numbers.

    Parameters
    ----------
    images
        (N, H, W) or (N, C, H, W): uint8, other integers from 0 to 255, or floats (taken as they are).
        They may be larger than memory: ``np.load("x.npy", mmap_mode="r")``. Arrays of CuPy, PyTorch, JAX and
        any library with ``__dlpack__`` or ``__cuda_array_interface__`` stay on their device;
        a network on that device trains on them without a copy.
    labels
        Integers (N,) that count the classes from 0, strings (N,) that name them, one-hot rows (N, K), or rows
        of numbers from 0 to 1: probabilities of the classes (soft labels), or a 1 for each class of an image
        (several labels).
    classes
        The number of classes, or their names. By default, the width of the rows or the highest
        label determines the number; classes without names are called "0", "1", ... Strings as labels are
        their own names, in sorted order; give the names to a second set, which may lack some.
    weights
        A number (N,) of at least 0 for each image. It multiplies the image's loss and gradient. Their mean
        is still over the number of images, as in Keras: ``sum(weights * losses) / N``.
    targets
        Numbers in the shape of the network's output (N, ...), instead of labels and classes. Bytes are
        scaled to 0..1 as images are, so an autoencoder learns from ``Dataset(images, targets=images)``.

    Attributes
    ----------
    images
        (N, C, H, W), contiguous; uint8, float32 or float64; of NumPy, or of CuPy on a GPU. Shared with the
        passed array if it is already in this form, and never written to; otherwise converted next to it in
        memory, also from a mapped file. A set that is pickled puts them on the device of the same name.
    targets
        What the network's output is compared with: labels, int64 (N,), or rows or other arrays of numbers.
        Those of one or two axes are on the host, copied once if they were passed on a device.
    labels
        The same; DataError if the set has no classes.
    classes
        The names, one for each label; none if ``targets`` were given.
    weights
        float64 (N,), or None.
    notes
        How the arrays of a file were interpreted, if they were not as documented here.
    fit
        How pictures were fitted to these images, as in :class:`cnn.data.Pictures`; None if that is unknown.

    Raises DataError for anything else; positions in its message count from 0.
    """

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        classes: Classes = None,
        weights: Any = None,
        targets: Any = None,
    ) -> None:
        if (labels is None) == (targets is None):
            raise DataError(
                f"labels and targets are {'both' if targets is not None else 'not'} given: expected one of "
                "the two, labels to tell classes apart, targets for a network that gives other numbers"
            )
        names = as_names(classes)
        if (texts := texts_in(labels)) is not None:
            ((_, labels),), names, _ = from_texts([Named("labels", texts)], names)
        if targets is None:
            self.images, self.targets, columns = as_pair(images, labels, names, soft=True)
            self.classes: tuple[str, ...] = names or numbered(columns or int(self.targets.max()) + 1)
        elif names is None:
            self.images, self.targets = with_targets(images, targets)
            self.classes = ()
        else:
            raise DataError("classes and targets are both given: targets have no classes, leave classes out")
        self.weights: Array | None = None if weights is None else as_weights(weights, len(self.images))
        self.notes: tuple[str, ...] = ()
        self.fit: str | None = None

    @classmethod
    def checked(
        cls,
        images: Array,
        targets: Array,
        classes: tuple[str, ...],
        notes: tuple[str, ...] = (),
        weights: Array | None = None,
        fit: str | None = None,
    ) -> "Dataset":
        """Make a Dataset of attributes that are valid; they are not checked again."""
        made = cls.__new__(cls)
        made.images, made.targets, made.classes, made.notes = images, targets, classes, notes
        made.weights, made.fit = weights, fit
        return made

    def with_note(self, note: str) -> "Dataset":
        """The same set with ``note`` before its other notes."""
        notes = (note, *self.notes)
        return Dataset.checked(self.images, self.targets, self.classes, notes, self.weights, self.fit)

    def named(self, classes: tuple[str, ...]) -> "Dataset":
        """The same set with these names of its classes."""
        return Dataset.checked(self.images, self.targets, classes, self.notes, self.weights, self.fit)

    def transposed(self, note: str) -> "Dataset":
        """The same set with rows and columns of the images exchanged, and a note on that."""
        images = np.ascontiguousarray(self.images.swapaxes(2, 3))
        notes = (*self.notes, note)
        return Dataset.checked(images, self.targets, self.classes, notes, self.weights, self.fit)

    def part(self, first: int, size: int) -> "Dataset":
        """The ``size`` samples from ``first`` on, as views of the same arrays."""
        samples = self.samples.map(lambda array: array[first : first + size])
        return Dataset.checked(
            samples.images, samples.targets, self.classes, self.notes, samples.weights, self.fit
        )

    @property
    def labels(self) -> Array:
        """The targets of a set with classes."""
        if not self.classes:
            raise DataError(f"{self!r} has no labels: use a loss and metrics that compare numbers")
        return self.targets

    @property
    def samples(self) -> Samples:
        """The arrays with an entry for each image."""
        return Samples(self.images, self.targets, self.weights)

    @property
    def has_one_class_each(self) -> bool:
        """Whether each image has exactly one class: the labels are integers."""
        return bool(self.classes) and self.targets.ndim == 1

    @property
    def has_accuracy(self) -> bool:
        """Whether each image has a class that is the right answer: its label, or its most probable one."""
        return self.has_one_class_each or (
            bool(self.classes) and bool((abs(self.targets.sum(axis=1) - 1) < _ROUNDING).all())
        )

    def require_classes(self, what: str) -> None:
        """Raise DataError unless each image has exactly one class; ``what`` needs that."""
        if not self.has_one_class_each:
            kind = "a row of numbers" if self.classes else "targets"
            raise DataError(f"{what} needs a class for each image, but {self!r} has {kind} for each")

    def __getstate__(self) -> dict[str, Any]:
        """The state to copy or pickle, with the location of arrays in a mapped file or on a device."""
        both = {name: getattr(self, name) for name in ("images", "targets")}
        moved = {name: place(array) or HostCopy.of(array) for name, array in both.items()}
        kept = vars(self) | {name: where for name, where in moved.items() if where}
        return kept | ({"targets": None} if self.targets is self.images else {})

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(
            {
                name: value.map() if isinstance(value, Place | HostCopy) else value
                for name, value in kept.items()
            }
        )
        self.targets = self.images if self.targets is None else self.targets

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, C, H, W = self.images.shape
        return C, H, W

    @property
    def fingerprint(self) -> str:
        """A hash of the labels and some of the images, which identifies the data set."""
        some = np.linspace(0, len(self) - 1, _COMPARED).astype(int)
        is_large = self.targets.ndim > 2
        targets = to_host(picked(self.targets, some)) if is_large else self.targets
        digest = hashlib.sha256(targets.tobytes())
        digest.update(to_host(picked(self.images, some)).tobytes())
        if self.weights is not None:
            digest.update(self.weights.tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        images = "image" if len(self) == 1 else "images"
        shape = dimensions(self.shape)
        classes = f"{len(self.classes)} {'class' if len(self.classes) == 1 else 'classes'}"
        what = classes if self.classes else f"targets {dimensions(self.targets.shape[1:])}"
        return f"Dataset({len(self):,} {images} {shape} {self.images.dtype}, {what})"

    def only(self, classes: Iterable[int | str] | None = None, per_class: int | None = None) -> "Dataset":
        """The first ``per_class`` images of each chosen class (None: all), in the order of this set.

        ``classes`` are names ("cat") or labels (3, or "3" if no class has this name); None chooses
        all classes. The labels become 0, 1, ... in the order in which the classes are given; the names
        are kept. Images that are not contiguous are copied; raises OutOfMemory if memory does not
        suffice for that.
        """
        self.require_classes("only")
        chosen = range(len(self.classes)) if classes is None else self._labels_of(classes)
        if per_class is not None and (not is_whole(per_class) or per_class < 1):
            raise DataError(
                f"per_class is {per_class!r}: expected a whole number of at least 1, or None for all images"
            )
        keep = np.zeros(len(self), dtype=bool)
        labels = np.empty_like(self.labels)
        for new, old in enumerate(chosen):
            first = np.flatnonzero(self.labels == old)[:per_class]
            if classes is not None and not first.size:
                raise DataError(f"class {self.classes[old]!r} has no image in {self!r}: leave it out")
            keep[first] = True
            labels[first] = new
        return self._part(keep, labels, tuple(self.classes[old] for old in chosen))

    def labelled_as(self, classes: tuple[str, ...]) -> "Dataset":
        """The images of these classes, labelled in this order; a class may have no images here.

        A network trained on ``classes`` can be tested on the result. Images are copied as in :meth:`only`.
        """
        self.require_classes("labelled_as")
        numbers = {name: label for label, name in enumerate(classes)}
        labels = np.array([numbers.get(name, -1) for name in self.classes])[self.labels]
        if labels.max() < 0:
            raise DataError(
                f"{self!r} has none of the classes {some_of(classes)}, but {some_of(self.classes)}"
            )
        return self._part(labels >= 0, labels, classes)

    def split(self, part: int | float, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """(the rest, a random part held out): ``part`` is a count of images or a fraction of them.

        Both keep this set's order and classes. The choice of images depends only on the seed (in the stream
        ``cnn.support.random.SPLIT``), the part and the length of the set. The images are copied, as in
        :meth:`only`.
        """
        if not is_whole(seed) or seed < 0:
            raise DataError(f"seed is {seed!r}: expected a whole number of at least 0")
        if is_whole(part):
            count = int(part)
        else:
            is_fraction = isinstance(part, float | np.floating) and 0 < part < 1
            count = round(part * len(self)) if is_fraction else 0
        if not 0 < count < len(self):
            raise DataError(
                f"cannot hold out {part!r} of {len(self):,} images: expected a count from 1 to "
                f"{len(self) - 1}, or a fraction between 0 and 1 that leaves an image in both parts"
            )
        held_out = np.zeros(len(self), dtype=bool)
        held_out[generator(seed, SPLIT).permutation(len(self))[:count]] = True
        return (
            self._part(~held_out, self.targets, self.classes),
            self._part(held_out, self.targets, self.classes),
        )

    def _part(self, keep: Array, targets: Array, classes: tuple[str, ...]) -> "Dataset":
        first, count = int(keep.argmax()), int(keep.sum())
        run = slice(first, first + count)
        is_run = keep[run].all()  # a view suffices then; the images may be larger than memory
        chosen = np.flatnonzero(keep)
        try:
            part = Samples(self.images, targets, self.weights).map(
                lambda array: array[run] if is_run else picked(array, chosen)
            )
            return Dataset.checked(part.images, part.targets, classes, self.notes, part.weights, self.fit)
        except MemoryError:
            raise OutOfMemory(
                "cpu",
                count * self.images[0].nbytes,
                None,
                f"{count:,} images of {self!r} are not contiguous and would have to be copied: give the "
                "parts as slices of the images, or in files of their own",
            ) from None

    def _labels_of(self, classes: Iterable[int | str]) -> list[int]:
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise DataError(f"classes is {classes!r}: expected a sequence of labels or names, such as (0, 1)")
        labels: list[int] = []
        for chosen in classes:
            label = self._label_of(chosen)
            if label in labels:
                raise DataError(f"class {self.classes[label]!r} is chosen twice: name each class once")
            labels.append(label)
        if not labels:
            raise DataError("no class is chosen: name at least one, or give None for all")
        return labels

    def _label_of(self, chosen: int | str) -> int:
        if isinstance(chosen, str) and chosen in self.classes:
            return self.classes.index(chosen)
        # a label, or a label as text from the command line
        label = int(chosen) if isinstance(chosen, str) and chosen.isdecimal() and len(chosen) < 10 else chosen
        if is_whole(label) and 0 <= label < len(self.classes):
            return int(label)
        raise DataError(
            f"unknown class {chosen!r}: expected {some_of(self.classes)} or a label from 0"
            + did_you_mean(chosen, self.classes)
        )
