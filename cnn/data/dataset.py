"""A data set: images, labels and class names, checked once when it is created."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from math import isqrt
from typing import Any, TypeGuard

import numpy as np

from backends.text import did_you_mean, first_line
from cnn.data.readers.mapped import Place, place
from cnn.data.samples import Samples
from cnn.support.errors import DataError, OutOfMemory
from cnn.support.random import SPLIT, generator
from cnn.support.text import is_printable, short, some_of, text_width

Array = np.ndarray
Classes = int | Iterable[str] | None

# A larger label is a mistake; a name for each class below it would fill the memory.
MOST_CLASSES = 1 << 16
_COMPARED = 64  # images in a fingerprint
CHANNELS = (1, 3, 4)  # grey, colour, colour with transparency
_LEAST_SIDE = 5  # of pictures that may have channels last
_ROUNDING = 1e-3  # of probabilities that add up to 1
_LOOKED_AT = 1 << 18  # numbers at a time: they stay in the processor's cache, and a file is read only once

_IMAGES_ADVICE = {  # by the kind of a dtype
    "b": "; give images.astype(numpy.float32)",
    "O": "; such an array contains images of different sizes, or no numbers",
    **dict.fromkeys(
        "US", "; this is text: if it contains file names, read the files, for example with Pillow"
    ),
}
_LABELS_ADVICE = {
    "b": "; give labels.astype(int)",
    "O": "; convert them all to numbers",
    **dict.fromkeys("US", "; to number names: classes, labels = numpy.unique(labels, return_inverse=True)"),
}


class Dataset:
    """Images, and what a network should give for each of them: a class, or any numbers.

    Parameters
    ----------
    images
        (N, H, W) or (N, C, H, W): uint8, other integers from 0 to 255, or floats (taken as they are).
        They may be larger than memory: ``np.load("x.npy", mmap_mode="r")``.
    labels
        Integers (N,) that count the classes from 0, one-hot rows (N, K), or rows of numbers from 0 to 1:
        probabilities of the classes (soft labels), or a 1 for each class of an image (several labels).
    classes
        The number of classes, or their names. By default, the width of the rows or the highest
        label determines the number; classes without names are called "0", "1", ...
    weights
        A number (N,) of at least 0 for each image. It multiplies the image's loss and gradient. Their mean
        is still over the number of images, as in Keras: ``sum(weights * losses) / N``.
    targets
        Numbers in the shape of the network's output (N, ...), instead of labels and classes. Bytes are
        scaled to 0..1 as images are, so an autoencoder learns from ``Dataset(images, targets=images)``.

    Attributes
    ----------
    images
        (N, C, H, W), contiguous; uint8, float32 or float64. Shared with the passed array if it is
        already in this form, and never written to; otherwise converted in memory, also from a mapped file.
    targets
        What the network's output is compared with: labels, int64 (N,), or rows or other arrays of numbers.
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
        if targets is None:
            self.images, self.targets, columns = as_pair(images, labels, names, soft=True)
            self.classes: tuple[str, ...] = names or numbered(columns or int(self.targets.max()) + 1)
        elif names is None:
            self.images, self.targets = _with_targets(images, targets)
            self.classes = ()
        else:
            raise DataError("classes and targets are both given: targets have no classes, leave classes out")
        self.weights: Array | None = None if weights is None else _as_weights(weights, len(self.images))
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
        """The state to copy or pickle: for arrays in a mapped file, their location in the file."""
        both = {name: place(getattr(self, name)) for name in ("images", "targets")}
        kept = vars(self) | {name: where for name, where in both.items() if where}
        return kept | ({"targets": None} if self.targets is self.images else {})

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(
            {name: value.map() if isinstance(value, Place) else value for name, value in kept.items()}
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
        digest = hashlib.sha256((self.targets[some] if is_large else self.targets).tobytes())
        for position in some:
            digest.update(self.images[position].tobytes())
        if self.weights is not None:
            digest.update(self.weights.tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        images = "image" if len(self) == 1 else "images"
        shape = "x".join(map(str, self.shape))
        classes = f"{len(self.classes)} {'class' if len(self.classes) == 1 else 'classes'}"
        what = classes if self.classes else f"targets {'x'.join(map(str, self.targets.shape[1:]))}"
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
        chosen = run if keep[run].all() else keep  # a view may suffice; the images may be larger than memory
        try:
            images = self.images[chosen]
            part = images if targets is self.images else targets[chosen]
            weights = None if self.weights is None else self.weights[chosen]
            return Dataset.checked(images, part, classes, self.notes, weights, self.fit)
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


def as_pair(
    images: Any,
    labels: Any,
    names: tuple[str, ...] | None,
    images_name: str = "images",
    labels_name: str = "labels",
    soft: bool = False,
) -> tuple[Array, Array, int | None]:
    """Images (N, C, H, W), int64 labels (N,), and the width of the one-hot rows (None if there were none).

    If ``soft``, rows that are not one-hot stay rows. Error messages use the names for the two arrays, for
    example a file and an array in it.
    """
    given_x, given_y = _as_array(images, images_name), _as_array(labels, labels_name)
    if given_x.ndim <= 2 and given_y.ndim in (3, 4):
        raise DataError(
            f"{images_name}: shape {given_x.shape}, but {labels_name}: {given_y.shape}: "
            "they seem to be swapped; expected images first, then labels"
        )
    if looks_channels_last(given_x.shape):
        raise DataError(f"{images_name}: shape {given_x.shape}: {channels_last_advice(given_x.shape)}")
    x = as_images(given_x, images_name)
    y, columns = _as_labels(given_y, names, labels_name, soft)
    _require_as_many(x, y, given_x.shape, images_name, labels_name)
    return x, y, columns


def _require_as_many(
    images: Array,
    labels: Array,
    given: tuple[int, ...],
    images_name: str,
    labels_name: str,
    one: str = "label",
) -> None:
    """Raise DataError unless there are as many labels as images; ``given`` is the shape before checks."""
    if len(images) != len(labels):
        advice = ""
        if given[-1] == len(labels):
            advice = f"; the last axis of {given} seems to count the images, make it the first"
        raise DataError(
            f"{images_name} and {labels_name} do not belong together: there are {len(images):,} images "
            f"but {len(labels):,} {one}s; expected one {one} for each image{advice}"
        )


def _with_targets(images: Any, targets: Any) -> tuple[Array, Array]:
    """Images (N, C, H, W), and targets (N, F) or (N, C, H, W)."""
    given = _as_array(images, "images")
    x = as_images(given, "images")
    if targets is images:
        return x, x
    array = _as_array(targets, "targets")
    y = as_images(array, "targets", "target") if array.ndim in (3, 4) else _as_rows(array, "targets")
    _require_as_many(x, y, given.shape, "images", "targets", "target")
    return x, y


def _as_rows(array: Array, name: str) -> Array:
    """Numbers (N,) or (N, F) as floats (N, F), or as bytes."""
    if array.ndim not in (1, 2) or 0 in array.shape or array.dtype.kind not in "iuf":
        raise DataError(
            f"{name}: shape {array.shape}, dtype {array.dtype}: expected numbers (N,), (N, F), (N, H, W) or "
            "(N, C, H, W), as the network's output, none of them 0"
        )
    dtype = np.uint8 if array.dtype == np.uint8 else _float_dtype(array)
    with np.errstate(all="ignore"):  # overflows become infinite and are refused below
        array = np.require(array, dtype=dtype, requirements=["C", "A"])
    _refuse_infinite(array, name, "target")
    return array[:, None] if array.ndim == 1 else array


def _as_weights(weights: Any, count: int) -> Array:
    """A weight for each image: float64 (N,)."""
    array = _as_array(weights, "weights")
    if array.shape != (count,) or array.dtype.kind not in "iuf":
        raise DataError(
            f"weights: shape {array.shape}, dtype {array.dtype}: expected one number for each of the "
            f"{count:,} images"
        )
    position = _first(~(np.isfinite(array) & (array >= 0)))
    if position is not None:
        raise DataError(
            f"weights: {array[position]} at position {position}: expected a finite number of at least 0"
        )
    if not array.any():
        raise DataError("weights: all are 0, so no image would be learned from: expected some above 0")
    return np.require(array, dtype=np.float64, requirements=["C", "A"])


def looks_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape are probably (N, H, W, C) instead of the documented (N, C, H, W).

    They are if C is a usual number of channels and H and W are larger. Other shapes, such as
    (N, 3, 32, 3), are taken as documented.
    """
    return len(shape) == 4 and shape[3] in CHANNELS and min(shape[1:3]) >= _LEAST_SIDE


def channels_last_advice(shape: tuple[int, ...]) -> str:
    """The advice for images that :func:`looks_channels_last`."""
    _, H, W, C = shape
    return (
        "this looks like channels last; expected (N, C, H, W), such as images.transpose(0, 3, 1, 2); "
        f"if they are {H} channels of {W}x{C}, give them as {C}x{W}"
    )


def as_names(classes: Classes, name: str = "classes") -> tuple[str, ...] | None:
    """The class names, given their count or the names; None stays None."""
    if classes is None:
        return None
    if is_whole(classes):
        count = int(classes)
        if not 1 <= count <= MOST_CLASSES:
            raise DataError(f"{name}: a count of {count}: expected 1 to {MOST_CLASSES}")
        return numbered(count)
    if isinstance(classes, str) or not isinstance(classes, Iterable):
        raise DataError(f"{name}: {classes!r} is neither a count nor a list of names")
    names = list(classes)
    for position, class_name in enumerate(names):
        if not isinstance(class_name, str) or not text_width(class_name) or not is_printable(class_name):
            raise DataError(f"{name}: {class_name!r} at position {position}: expected printable text")
    if not names:
        raise DataError(f"{name}: there are no names: expected one for each class")
    (twice, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise DataError(f"{name}: {twice!r} occurs more than once: expected names that are unique")
    return tuple(map(str, names))


def as_texts(texts: Array, name: str) -> list[str]:
    """The strings in an array of str or bytes; DataError for bytes that are not UTF-8."""
    try:
        return [text if isinstance(text, str) else text.decode() for text in texts.tolist()]
    except UnicodeDecodeError:
        raise DataError(f"{name}: bytes that are not text in UTF-8: save it as text") from None


def numbered(count: int) -> tuple[str, ...]:
    """Default names for classes."""
    return tuple(map(str, range(count)))


def is_whole(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a Python or NumPy integer, but not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def as_images(images: Any, name: str = "images", one: str = "image") -> Array:
    """Contiguous images (N, C, H, W) in a dtype of a Dataset; DataError if that is not possible.

    Error messages use ``name`` for the array, and ``one`` for an image in it.
    """
    array = _as_array(images, name)
    kind = array.dtype.kind
    if array.shape[:1] == (0,):
        raise DataError(f"{name}: the set is empty: expected at least one image")
    if kind not in "iuf":
        raise DataError(f"{name}: dtype {array.dtype}: expected uint8 or float{_IMAGES_ADVICE.get(kind, '')}")
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(
            f"{name}: shape {array.shape}: expected (N, H, W) or (N, C, H, W), none of them 0"
            f"{_reshape_advice(array.shape)}"
        )
    if array.dtype == np.uint8:
        dtype: type[np.number[Any]] = np.uint8
    elif kind in "iu":
        low, high = array.min(), array.max()
        if low < 0 or high > 255:
            raise DataError(
                f"{name}: {array.dtype} values from {low} to {high}: expected 0 to 255; "
                f"pass other ranges as floats, scaled to 0..1{_scaling_advice(int(low), int(high))}"
            )
        dtype = np.uint8
    else:
        dtype = _float_dtype(array)
    with np.errstate(all="ignore"):  # overflows become infinite and are refused below
        array = np.require(array, dtype=dtype, requirements=["C", "A"])
        if kind == "f":
            _refuse_infinite(array, name, one)
    return array[:, None] if array.ndim == 3 else array


def _float_dtype(array: Array) -> type[np.number[Any]]:
    """The dtype of floats in a Dataset that are given in this array."""
    return np.float64 if array.dtype.itemsize == 8 else np.float32


def _scaling_advice(low: int, high: int) -> str:
    """How to scale integers of another depth, such as 12 bits, to 0..1."""
    return f", such as images / {(1 << high.bit_length()) - 1}" if low >= 0 else ""


def _reshape_advice(shape: tuple[int, ...]) -> str:
    """How to reshape flattened images, or a single image."""
    if len(shape) != 2:
        return ""
    grey, colour = isqrt(shape[1]), isqrt(shape[1] // 3)
    if min(grey, colour) < _LEAST_SIDE:
        return ""
    if grey * grey == shape[1]:
        return f"; rows of {shape[1]} pixels are images.reshape(-1, {grey}, {grey})"
    if 3 * colour * colour == shape[1]:
        return (
            f"; rows of {shape[1]} numbers are images.reshape(-1, 3, {colour}, {colour}) if the red, green "
            "and blue planes follow one another, as in CIFAR-10, or else "
            f"images.reshape(-1, {colour}, {colour}, 3).transpose(0, 3, 1, 2)"
        )
    return ""


def _refuse_infinite(array: Array, name: str, one: str) -> None:
    count = max(1, _LOOKED_AT // array[0].size)
    for start in range(0, len(array), count):
        images = array[start : start + count]
        if np.isfinite([images.min(), images.max()]).all():  # NaN is both
            continue
        finite = np.isfinite(images).all(axis=tuple(range(1, images.ndim)))
        raise DataError(
            f"{name}: {one} {start + finite.argmin()} contains NaN or infinity: expected finite numbers"
        )


def _as_labels(labels: Any, names: tuple[str, ...] | None, name: str, soft: bool) -> tuple[Array, int | None]:
    array = _as_array(labels, name)
    if array.ndim == 2:
        return _from_class_rows(array, names, name, soft), array.shape[1]
    if array.ndim != 1:
        raise DataError(f"{name}: shape {array.shape}: expected integers (N,) or one-hot rows (N, K)")
    kind = array.dtype.kind
    if kind not in "iuf":
        raise DataError(f"{name}: dtype {array.dtype}: expected integers{_LABELS_ADVICE.get(kind, '')}")
    if array.dtype.kind == "f":
        position = _first(array != np.floor(array))  # NaN differs from itself
        if position is not None:
            raise DataError(f"{name}: {array[position]} at position {position}: expected a whole number")
    limit = MOST_CLASSES if names is None else len(names)
    position = _first((array < 0) | (array >= limit))
    if position is not None:
        given = "" if names is None else f", for the {limit} classes given"
        raise DataError(
            f"{name}: label {array[position]} at position {position} is out of range: "
            f"expected 0 to {limit - 1}{given}{_range_advice(array, limit)}"
        )
    return np.require(array, dtype=np.int64, requirements=["C", "A"]), None


def _range_advice(labels: Array, limit: int) -> str:
    """How to convert labels that do not count from 0."""
    lowest, highest = labels.min(), labels.max()
    if (lowest, highest) == (1, limit):
        return "; they count from 1: give labels - 1"
    if (lowest, highest) == (-1, 1) and (abs(labels) == 1).all():
        return "; for two classes, -1 and 1, give labels > 0 as integers"
    if lowest < 0:
        return "; classes, labels = numpy.unique(labels, return_inverse=True) counts them from 0"
    return ""


def _from_class_rows(rows: Array, names: tuple[str, ...] | None, name: str, soft: bool) -> Array:
    """The labels of one-hot rows; other rows as floats if ``soft``."""
    if rows.shape[1] < 2:
        raise DataError(
            f"{name}: shape {rows.shape}: expected integers (N,) or one-hot rows (N, K) of two columns "
            "or more; flatten a column of labels, as labels.reshape(-1) does"
        )
    if rows.dtype.kind not in "biuf":
        raise DataError(f"{name}: dtype {rows.dtype}: expected one-hot rows of numbers")
    if names is not None and len(names) != rows.shape[1]:
        raise DataError(
            f"{name}: one-hot rows of {rows.shape[1]} columns, but {len(names)} classes are given: "
            "expected as many"
        )
    ones = rows == 1
    position = _first((ones.sum(axis=1) != 1) | ~(ones | (rows == 0)).all(axis=1))
    if position is not None and soft:
        return _soft_rows(rows, name)
    if position is not None:
        raise DataError(
            f"{name}: row {position} is not one-hot: expected a single 1 and zeros, one class for each image"
            f"{'; flatten a row of labels' if len(rows) == 1 else ''}"
        )
    return ones.argmax(axis=1).astype(np.int64, copy=False)


def _soft_rows(rows: Array, name: str) -> Array:
    outside = ~((rows >= 0) & (rows <= 1))  # NaN is neither
    position = _first(outside.any(axis=1))
    if position is not None:
        raise DataError(
            f"{name}: row {position} has numbers that are not from 0 to 1: expected a single 1 and zeros, "
            "probabilities, or a 1 for each class that the image shows; give other numbers as targets"
            f"{'; flatten a row of labels' if len(rows) == 1 else ''}"
        )
    return np.require(rows, dtype=_float_dtype(rows), requirements=["C", "A"])


def _first(wrong: Any) -> int | None:
    position = int(wrong.argmax()) if wrong.size else 0
    return position if wrong.size and wrong[position] else None


def _as_array(values: Any, name: str) -> Array:
    if isinstance(values, np.ma.MaskedArray):
        count = int(np.ma.count_masked(values))
        if count:
            raise DataError(
                f"{name}: {count:,} values are masked: leave out what they belong to, or give "
                f"{name}.filled(0)"
            )
    try:
        return np.asarray(values)
    except MemoryError:
        raise
    except Exception as error:  # ragged rows, or an array of another library
        reason = short(first_line(error) or type(error).__name__, 200)
        if hasattr(values, "detach"):  # PyTorch's
            advice = f"give {name}.detach().cpu().numpy()"
        elif "inhomogeneous" in reason:
            advice = "expected items of the same size"
        else:
            advice = "expected a plain array"
        raise DataError(f"{name}: cannot be converted to a NumPy array ({reason}): {advice}") from error
