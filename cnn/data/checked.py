"""Images, targets, weights and class names, checked: an error message says what is wrong and what to do."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from math import isqrt
from typing import Any, TypeGuard

import numpy as np

import backends
from backends.interoperability import as_array, on_host, to_host
from backends.memory import Array
from backends.text import first_line
from cnn.data.samples import measured
from cnn.support.errors import ArgumentError, DataError, DeviceLost, OutOfMemory
from cnn.support.text import is_printable, short, text_width

Classes = int | Iterable[str] | None

# A larger label is a mistake; a name for each class below it would fill the memory.
MOST_CLASSES = 1 << 16
CHANNELS = (1, 3, 4)  # grey, colour, colour with transparency
_LEAST_SIDE = 5  # of pictures that may have channels last
# numbers on the host at a time: they stay in the processor's cache, and a file is read only once
_LOOKED_AT = 1 << 18

_IMAGES_ADVICE = {  # by the kind of a dtype
    "b": "; give images.astype(numpy.float32)",
    "O": "; such an array contains images of different sizes, or no numbers",
    **dict.fromkeys(
        "US", "; this is text: if it contains file names, read the files, for example with Pillow"
    ),
}
_LABELS_ADVICE = {
    "b": "; give labels.astype(int)",
    "O": "; convert them all to numbers, or all to strings",
}


def as_pair(
    images: Any,
    labels: Any,
    names: tuple[str, ...] | None,
    images_name: str = "images",
    labels_name: str = "labels",
    soft: bool = False,
) -> tuple[Array, Array, int | None]:
    """Images (N, C, H, W), int64 labels (N,), and the width of the one-hot rows (None if there were none).

    The images stay on their device, the labels are on the host. If ``soft``, rows that are not one-hot stay
    rows. Error messages use the names for the two arrays, for example a file and an array in it.
    """
    given_x, given_y = _as_array(images, images_name), to_host(_as_array(labels, labels_name))
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


def with_targets(images: Any, targets: Any) -> tuple[Array, Array]:
    """Images (N, C, H, W), and targets (N, F) or (N, C, H, W); pictures stay on their device."""
    given = _as_array(images, "images")
    x = as_images(given, "images")
    if targets is images:
        return x, x
    array = _as_array(targets, "targets")
    as_targets = as_images if array.ndim in (3, 4) else _as_rows
    y = as_targets(array, "targets", "target")
    _require_as_many(x, y, given.shape, "images", "targets", "target")
    return x, y


def _as_rows(given: Array, name: str, one: str) -> Array:
    """Numbers (N,) or (N, F) as floats (N, F) on the host, or as bytes."""
    array = to_host(given)
    if array.ndim not in (1, 2) or 0 in array.shape or array.dtype.kind not in "iuf":
        raise DataError(
            f"{name}: shape {array.shape}, dtype {array.dtype}: expected numbers (N,), (N, F), (N, H, W) or "
            "(N, C, H, W), as the network's output, none of them 0"
        )
    dtype = np.uint8 if array.dtype == np.uint8 else _float_dtype(array)
    with np.errstate(all="ignore"):  # overflows become infinite and are refused below
        array = np.require(array, dtype=dtype, requirements=["C", "A"])
    _refuse_infinite(array, name, one)
    return array[:, None] if array.ndim == 1 else array


def as_weights(weights: Any, count: int) -> Array:
    """A weight for each image: float64 (N,)."""
    array = to_host(_as_array(weights, "weights"))
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
    """The class names, given their count or the names, with accents in one form (NFC); None stays None."""
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
    found = tuple(unicodedata.normalize("NFC", str(class_name)) for class_name in names)
    (twice, times), *_ = Counter(found).most_common(1)
    if times > 1:
        raise DataError(f"{name}: {twice!r} occurs more than once: expected names that are unique")
    return found


def as_class_names(names: Any, outputs: tuple[int, ...]) -> tuple[str, ...] | None:
    """The names of the classes of a network with outputs of this shape; None stays None."""
    found = as_names(names, "class_names")
    if found is not None and (len(found),) != outputs:
        raise DataError(f"class_names: {len(found)} names, expected one for each output of {outputs}")
    return found


def as_texts(texts: Array, name: str) -> list[str]:
    """The strings in an array of str or bytes, letters with accents in one form (NFC).

    Raises DataError for bytes that are not UTF-8.
    """
    try:
        decoded = [text if isinstance(text, str) else text.decode() for text in texts.tolist()]
        return [unicodedata.normalize("NFC", text) for text in decoded]
    except UnicodeDecodeError:
        raise DataError(f"{name}: bytes that are not text in UTF-8: save it as text") from None


def texts_in(labels: Any) -> Array | None:
    """The labels as an array (N,) of str or bytes; None if they are anything else."""
    if isinstance(labels, np.ma.MaskedArray) or not isinstance(labels, Iterable):
        return None
    array = _as_array(labels, "labels")
    if array.ndim != 1 or not array.size:
        return None
    if array.dtype.kind == "T" or (array.dtype == object and all(isinstance(each, str) for each in array)):
        array = array.astype(str)
    return array if array.dtype.kind in "US" else None


def numbered(count: int) -> tuple[str, ...]:
    """Default names for classes."""
    return tuple(map(str, range(count)))


def is_whole(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a Python or NumPy integer, but not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def as_images(images: Any, name: str = "images", one: str = "image") -> Array:
    """Contiguous images (N, C, H, W) in a dtype of a Dataset; DataError if that is not possible.

    They stay on their device, and are not copied if they are contiguous and of such a dtype.
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
        low, high = (int(end) for end in _ends(array))
        if low < 0 or high > 255:
            raise DataError(
                f"{name}: {array.dtype} values from {low} to {high}: expected 0 to 255; "
                f"pass other ranges as floats, scaled to 0..1{_scaling_advice(low, high)}"
            )
        dtype = np.uint8
    else:
        dtype = _float_dtype(array)
    with np.errstate(all="ignore"):  # overflows become infinite and are refused below
        array = _contiguous(array, dtype)
        if kind == "f":
            _refuse_infinite(array, name, one)
    return array[:, None] if array.ndim == 3 else array


def _contiguous(array: Array, dtype: Any) -> Array:
    """The array itself, or a contiguous copy in ``dtype`` next to it."""
    if on_host(array):
        return np.require(array, dtype=dtype, requirements=["C", "A"])
    backend = backends.of(array)
    with backend.active():
        return backend.xp.ascontiguousarray(array, dtype=dtype)


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
    count = max(1, _LOOKED_AT // array[0].size) if on_host(array) else len(array)
    for start in range(0, len(array), count):
        images = array[start : start + count]
        if np.isfinite(_ends(images)).all():  # NaN is both
            continue
        finite = np.isfinite(_ends(images, tuple(range(1, images.ndim)))).all(axis=0)
        raise DataError(
            f"{name}: {one} {start + finite.argmin()} contains NaN or infinity: expected finite numbers"
        )


def _ends(array: Array, axis: tuple[int, ...] | None = None) -> list[Any]:
    """The lowest and highest numbers, on the host."""
    return measured(array, lambda numbers: [numbers.min(axis), numbers.max(axis)])


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
        return as_array(values, name)
    except (MemoryError, OutOfMemory, DeviceLost):
        raise
    except ArgumentError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # ragged rows, or an object that does not convert itself
        reason = short(first_line(error) or type(error).__name__, 200)
        advice = f"expected {'items of the same size' if 'inhomogeneous' in reason else 'a plain array'}"
        raise DataError(f"{name}: cannot be converted to a NumPy array ({reason}): {advice}") from error
