"""Augmentation: each epoch shows a changed version of each training image. Exported as ``cnn.augment``.

The device changes the images in the pass that gathers a batch. In whatever order the augmentations of a list
are given, the image is first moved (all moves become one, so that it is resampled once), then its brightness
and contrast change, then the network's normalization is applied, then pixels are erased, and at last it is
mixed with another image of its batch.

What an image gets is drawn from the seed, the epoch, the image's position in the training set and the
augmentation's position in the list. So it is the same on every device and every kernel set, bit for bit,
however the batches are cut, and in a resumed run.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin, tan
from typing import Any

import numpy as np

from backends import Backend
from backends.kernels.augmentation import (
    BLEND,
    BOX_LEFT,
    BOX_SIZE,
    BOX_TOP,
    COLOUR,
    COLUMNS,
    GEOMETRY,
    UNIT,
    Step,
    rows_drawn,
)
from backends.memory import Array, Buffers
from backends.text import did_you_mean
from cnn.data.dataset import Dataset
from cnn.support import random
from cnn.support.arguments import number, shown, whole
from cnn.support.errors import ArgumentError
from cnn.support.text import literal

LEVELS = 1024  # values that a continuous parameter takes, evenly spread
MODES = ("zero", "reflect")
Size = tuple[int, int]


@dataclass(frozen=True)
class Draw:
    """One random choice: a row of a table, or none of them; ``probability`` is that of any of them.

    :mod:`backends.kernels.augmentation` says what rows of a ``kind`` do. A choice that ``alternates`` has two
    rows: the first is random, then they take turns by the epoch. A ``box`` is numbered by the augmenter.
    """

    kind: int
    rows: Sequence[Sequence[float]]
    probability: float = 1
    alternates: bool = False


class Augmentation(ABC):
    """Base class of augmentations."""

    mode: str | None = None
    """What is seen outside of an image: "zero" (black) or "reflect" (its mirror image); None: nothing."""
    moves = False
    """Whether pixels get another place."""
    smooth = False
    """Whether pixels move by less than a pixel, so that values are interpolated."""
    mixes = False
    """Whether images are mixed, so that targets are shares of classes."""
    erases = False

    @abstractmethod
    def draws(self, size: Size, white: float) -> list[Draw]:
        """The random choices for images of this size; ``white`` is the brightest value of stored pixels."""


@dataclass(frozen=True)
class Shift(Augmentation):
    """Moves the image by up to ``pixels`` whole pixels in both directions.

    ``mode`` fills in what comes into sight: "zero" (black) or "reflect" (the mirror image).
    """

    pixels: int
    mode: str = "zero"
    moves = True

    def __post_init__(self) -> None:
        whole("Shift: pixels", self.pixels)
        _require_mode(self)

    def draws(self, size: Size, white: float) -> list[Draw]:
        _require_below(f"Shift: pixels is {self.pixels}", self.pixels, size)
        moves = range(-self.pixels, self.pixels + 1)
        return [
            Draw(GEOMETRY, [_affine(rows=(1, move)) for move in moves]),
            Draw(GEOMETRY, [_affine(columns=(1, move)) for move in moves]),
        ]


@dataclass(frozen=True)
class Crop(Augmentation):
    """Takes a part of the image at random.

    With ``padding`` around the image, the part is as large as the image; ``mode`` fills the padding: "zero"
    (black) or "reflect" (the mirror image). Or the part has ``size`` x ``size`` pixels, and is enlarged to
    the size of the image.
    """

    padding: int | None = None
    mode: str = "zero"
    size: int | None = None
    moves = True

    def __post_init__(self) -> None:
        if (self.padding is None) == (self.size is None):
            raise ArgumentError(
                f"Crop has padding {self.padding} and size {self.size}: expected one of them, "
                "such as padding=4"
            )
        whole(*("Crop: size", self.size) if self.padding is None else ("Crop: padding", self.padding))
        _require_mode(self)

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        return self.size is not None

    def draws(self, size: Size, white: float) -> list[Draw]:
        if self.padding is not None:
            _require_below(f"Crop: padding is {self.padding}", self.padding, size)
            return Shift(self.padding, self.mode).draws(size, white)
        assert self.size is not None
        _require_below(f"Crop: size is {self.size}", self.size - 1, size)
        lines = []
        for extent in size:
            zoom = self.size / extent
            first = (zoom - 1) / 2  # the middle of the first pixel
            lines.append([(zoom, first + start) for start in range(extent - self.size + 1)])
        return [
            Draw(GEOMETRY, [_affine(rows=line) for line in lines[0]]),
            Draw(GEOMETRY, [_affine(columns=line) for line in lines[1]]),
        ]


@dataclass(frozen=True)
class Flip(Augmentation):
    """Mirrors every other image, drawn at random in each epoch: left becomes right."""

    moves = True

    def draws(self, size: Size, white: float) -> list[Draw]:
        return [Draw(GEOMETRY, [_mirror(size)], probability=0.5)]


@dataclass(frozen=True)
class AlternatingFlip(Augmentation):
    """Mirrors a random half of the images in the first epoch, the other half in the second, and so on.

    So two epochs in a row show both versions of each image (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds").
    """

    moves = True

    def draws(self, size: Size, white: float) -> list[Draw]:
        return [Draw(GEOMETRY, [_affine(), _mirror(size)], alternates=True)]


@dataclass(frozen=True)
class Rotate(Augmentation):
    """Turns the image around its centre by up to ``degrees`` in both directions; ``mode`` as in Shift."""

    degrees: float
    mode: str = "zero"
    moves = True
    smooth = True

    def __post_init__(self) -> None:
        number("Rotate: degrees", self.degrees, most=180)
        _require_mode(self)

    def draws(self, size: Size, white: float) -> list[Draw]:
        angles = [radians(angle) for angle in _spread(-self.degrees, self.degrees)]
        return [Draw(GEOMETRY, [_around(size, (cos(a), -sin(a)), (sin(a), cos(a))) for a in angles])]


@dataclass(frozen=True)
class Scale(Augmentation):
    """Enlarges the image around its centre by a factor from ``low`` to ``high``; ``mode`` as in Shift."""

    low: float
    high: float
    mode: str = "zero"
    moves = True
    smooth = True

    def __post_init__(self) -> None:
        number("Scale: low", self.low, least=0.1)
        number("Scale: high", self.high, least=self.low, most=10)
        _require_mode(self)

    def draws(self, size: Size, white: float) -> list[Draw]:
        factors = _spread(self.low, self.high)
        return [Draw(GEOMETRY, [_around(size, (1 / factor, 0), (0, 1 / factor)) for factor in factors])]


@dataclass(frozen=True)
class Shear(Augmentation):
    """Slants the image by up to ``degrees`` to the left or to the right; ``mode`` as in Shift."""

    degrees: float
    mode: str = "zero"
    moves = True
    smooth = True

    def __post_init__(self) -> None:
        number("Shear: degrees", self.degrees, most=80)
        _require_mode(self)

    def draws(self, size: Size, white: float) -> list[Draw]:
        slants = [tan(radians(angle)) for angle in _spread(-self.degrees, self.degrees)]
        return [Draw(GEOMETRY, [_around(size, (1, 0), (slant, 1)) for slant in slants])]


@dataclass(frozen=True)
class Erase(Augmentation):
    """Sets a square of ``size`` x ``size`` pixels to 0, with this ``probability`` (DeVries et al. 2017).

    The network gets zeros there: black, or the mean of the training set if the network normalizes.
    """

    size: int
    probability: float = 1.0
    erases = True

    def __post_init__(self) -> None:
        whole("Erase: size", self.size)
        number("Erase: probability", self.probability, least=0.001, most=1)

    def draws(self, size: Size, white: float) -> list[Draw]:
        _require_below(f"Erase: size is {self.size}", self.size - 1, size)
        return [
            Draw(BOX_SIZE, [(self.size, self.size)], self.probability),
            Draw(BOX_TOP, [(top, 0) for top in range(size[0] - self.size + 1)]),
            Draw(BOX_LEFT, [(left, 0) for left in range(size[1] - self.size + 1)]),
        ]


@dataclass(frozen=True)
class Brightness(Augmentation):
    """Multiplies all pixels of an image by a number from ``1 - amount`` to ``1 + amount``."""

    amount: float

    def __post_init__(self) -> None:
        number("Brightness: amount", self.amount, most=1)

    def draws(self, size: Size, white: float) -> list[Draw]:
        return [Draw(COLOUR, [(gain, 0) for gain in _spread(1 - self.amount, 1 + self.amount)])]


@dataclass(frozen=True)
class Contrast(Augmentation):
    """Multiplies the differences from middle grey by a number from ``1 - amount`` to ``1 + amount``.

    Middle grey is 0.5, where black is 0 and white is 1.
    """

    amount: float

    def __post_init__(self) -> None:
        number("Contrast: amount", self.amount, most=1)

    def draws(self, size: Size, white: float) -> list[Draw]:
        gains = _spread(1 - self.amount, 1 + self.amount)
        return [Draw(COLOUR, [(gain, (1 - gain) * white / 2) for gain in gains])]


@dataclass(frozen=True)
class Mixup(Augmentation):
    """Blends each image with another one of its batch; the targets are blended too (Zhang et al. 2018).

    The image's own share is drawn from the beta distribution with both parameters ``alpha``.
    """

    alpha: float
    mixes = True

    def __post_init__(self) -> None:
        number("Mixup: alpha", self.alpha, least=0.01, most=100)

    def draws(self, size: Size, white: float) -> list[Draw]:
        return [Draw(BLEND, [(share,) for share in beta_quantiles(self.alpha)])]


@dataclass(frozen=True)
class CutMix(Augmentation):
    """Replaces a rectangle of each image by that of another one of its batch (Yun et al. 2019).

    The rectangle's share of the area is drawn from the beta distribution with both parameters ``alpha``. It
    is centred anywhere, and what lies outside of the image is cut off. The targets are shares of the area.
    """

    alpha: float
    mixes = True

    def __post_init__(self) -> None:
        number("CutMix: alpha", self.alpha, least=0.01, most=100)

    def draws(self, size: Size, white: float) -> list[Draw]:
        sides = [(1 - share) ** 0.5 for share in beta_quantiles(self.alpha)]
        return [
            Draw(BOX_SIZE, [[int(extent * side) for extent in size] for side in sides]),
            Draw(BOX_TOP, [(centre, 0.5) for centre in range(size[0])]),
            Draw(BOX_LEFT, [(centre, 0.5) for centre in range(size[1])]),
        ]


@dataclass(frozen=True)
class Move(Augmentation):
    """Always moves the image by so many rows and columns, and then mirrors it if it is ``mirrored``."""

    rows: int = 0
    columns: int = 0
    mirrored: bool = False
    mode: str = "reflect"

    def draws(self, size: Size, white: float) -> list[Draw]:
        _require_below(f"tta moves images by {abs(self.rows)} pixels", abs(self.rows), size)
        move = _affine((1, self.rows), (1, self.columns))
        return [Draw(GEOMETRY, [row]) for row in (move, *[_mirror(size)] * self.mirrored)]


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "shift": Shift,
    "crop": Crop,
    "flip": Flip,
    "alternating-flip": AlternatingFlip,
    "rotate": Rotate,
    "scale": Scale,
    "shear": Shear,
    "erase": Erase,
    "brightness": Brightness,
    "contrast": Contrast,
    "mixup": Mixup,
    "cutmix": CutMix,
}
# how each of them is written as text
EXAMPLES = (
    "shift=2", "crop=4", "flip", "alternating-flip", "rotate=10", "scale=0.9:1.1", "shear=10", "erase=8",
    "brightness=0.2", "contrast=0.2", "mixup=0.2", "cutmix=1",
)  # fmt: skip


class Augmenter:
    """The augmentations of a list for images of one shape on one device.

    ``images_dtype`` is that of the stored images. :meth:`start` begins an epoch; it comes before
    :meth:`gather`.
    """

    def __init__(
        self,
        backend: Backend,
        augmentations: Sequence[Augmentation],
        shape: tuple[int, ...],
        images_dtype: Any,
        seed: int = 0,
    ) -> None:
        self._backend, self._seed = backend, seed
        self._size = shape[1], shape[2]
        self._reflect = common_mode(augmentations) == "reflect"
        self._smooth = any(each.smooth for each in augmentations)
        self.mixes = any(each.mixes for each in augmentations)
        white = 255 if images_dtype == np.uint8 else 1
        steps: list[Step] = []
        rows: list[list[float]] = []
        boxes = 0
        for augmentation in augmentations:
            boxes += augmentation.erases
            for draw in augmentation.draws(self._size, white):
                span = round(len(draw.rows) * UNIT / draw.probability)
                box = boxes if augmentation.erases else 0
                steps.append(Step(draw.kind, len(rows), len(draw.rows), span, draw.alternates, box))
                rows += [[*row, *[0] * (COLUMNS - len(row))] for row in draw.rows]
        self._program = tuple(steps)
        self._rows = rows_drawn(self._program)
        table = np.floor(np.array(rows or [[0] * COLUMNS], dtype=np.float64) * UNIT + 0.5) / UNIT
        self._table = backend.asarray(table)
        with backend.active():
            self._keys = backend.zeros(3, np.int64)

    def start(self, epoch: int) -> None:
        """Begin an epoch, counted from 0."""
        keys = (
            random.stream(self._seed, random.AUGMENT, epoch),
            random.stream(self._seed, random.AUGMENT_RUN, 0),
            epoch,
        )
        self._backend.asarray(np.array(keys, dtype=np.int64), out=self._keys)

    def gather(
        self,
        images: Array,
        chosen: Array,
        samples: Array,
        normalization: Sequence[Array],
        buffers: Buffers,
        x: Array,
    ) -> Array:
        """``x`` = the chosen images (k, n), augmented; -> what has been drawn for them (rows, n).

        ``samples`` (k, n) are the positions of the images in the training set. The images in the second row,
        if there is one, are augmented too, and then mixed with those in the first.
        """
        kernels = self._backend.kernels
        k, n = chosen.shape
        drawn = buffers.view("drawn", (k, self._rows, n), np.float64)
        kernels.draw(samples, self._keys, self._program, self._table, self._size, drawn)
        how = self._reflect, self._smooth
        shift, scale = normalization
        if k == 1:
            kernels.augment_batch(images, chosen[0], drawn[0], *how, shift, scale, x)
        else:
            kernels.augment_pairs(images, chosen, drawn, *how, shift, scale, x)
        return drawn[0]


def require_suitable(augment: Sequence[Augmentation], data: Dataset) -> None:
    """Raise ArgumentError for an augmentation that would have to change the targets of ``data`` too."""
    for each in augment:
        if (each.moves or each.mixes) and not data.classes:
            raise ArgumentError(
                f"{each!r} needs images with classes, but {data!r} has targets, which it would not change "
                "with the images: leave it out"
            )


def require_size(augmentations: Sequence[Augmentation], shape: tuple[int, ...]) -> None:
    """Raise ArgumentError for an augmentation that moves or erases more than images of ``shape`` have."""
    for each in augmentations:
        each.draws((shape[1], shape[2]), white=1)


def common_mode(augmentations: Sequence[Augmentation]) -> str | None:
    """The mode that all moves share, as they become one; ArgumentError if they differ."""
    modes: dict[str, str] = {}
    for each in augmentations:
        if each.mode is not None:
            modes.setdefault(each.mode, type(each).__name__)
    if len(modes) > 1:
        (mode, name), (other_mode, other) = list(modes.items())[:2]
        raise ArgumentError(
            f"{name} has mode {mode!r} and {other} has mode {other_mode!r}: all moves of an image are made "
            "at once, so give them the same mode"
        )
    return next(iter(modes), None)


def parse(texts: Sequence[str]) -> list[Augmentation]:
    """Augmentations from texts such as "shift=2", "flip", "crop=4:reflect" and "crop=size=24".

    Raises ArgumentError for one that does not exist, or whose numbers make no sense.
    """
    augmentations = [_parsed(text) for text in texts]
    common_mode(augmentations)
    return augmentations


def views(tta: str | None) -> list[Augmentation]:
    """The views of test-time augmentation next to the image itself, from a text such as "mirror,shifts=1".

    ``mirror`` adds the mirror image. ``shifts=K`` adds the image moved by K pixels up and to the left, and
    down and to the right; its reflection comes into sight at the border (Jordan 2024). Both together are five
    further views. None and "none" are none.
    """
    if tta is None or tta == "none":
        return []
    moves, mirrors = [0], [False]
    for part in str(tta).split(","):
        name, _, pixels = part.strip().partition("=")
        if name == "mirror" and not pixels:
            mirrors = [False, True]
        elif name == "shifts" and pixels.isdecimal() and int(pixels):
            moves = [0, -int(pixels), int(pixels)]
        else:
            raise ArgumentError(f"tta is {shown(tta)}, expected mirror, shifts=1, mirror,shifts=1 or none")
    return [Move(move, move, mirrored) for move in moves for mirrored in mirrors if move or mirrored]


def _parsed(text: str) -> Augmentation:
    name, given, values = text.partition("=")
    if name not in AUGMENTATIONS:
        meant = did_you_mean(name, AUGMENTATIONS)
        raise ArgumentError(f"unknown augmentation {name!r}: expected {', '.join(AUGMENTATIONS)}{meant}")
    kind = AUGMENTATIONS[name]
    try:
        positional, named = _arguments(values.split(":") if given else [])
        bound = inspect.signature(kind).bind(*positional, **named)
    except TypeError:
        example = dict(zip(AUGMENTATIONS, EXAMPLES, strict=True))[name]
        raise ArgumentError(f"cannot read the augmentation {text!r}: write it as in {example}") from None
    return kind(*bound.args, **bound.kwargs)


def _arguments(values: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Values such as "4" by position, and values such as "size=24" by name."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for value in values:
        name, is_named, rest = value.partition("=")
        if is_named:
            named[name] = literal(rest)
        else:
            positional.append(literal(value))
    return positional, named


def beta_quantiles(alpha: float) -> list[float]:
    """The quantiles (k + 0.5) / LEVELS of the beta distribution whose parameters are both ``alpha``.

    For t = x^alpha the density is finite where that of x is not, if alpha is below 1. What is above the
    median 0.5 is the mirror image of what is below.
    """
    power = min(alpha, 1)
    t = np.linspace(0, 0.5**power, 1 << 14)
    x = t ** (1 / power)
    density = x ** (alpha - power) * (1 - x) ** (alpha - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    wanted = (np.arange(LEVELS // 2) + 0.5) / LEVELS
    lower = np.interp(wanted, below * (0.5 / below[-1]), t) ** (1 / power)
    return [*lower.tolist(), *(1 - lower[::-1]).tolist()]


def _spread(low: float, high: float) -> list[float]:
    """LEVELS numbers, evenly spread from ``low`` to ``high``."""
    return [low + (high - low) * (level + 0.5) / LEVELS for level in range(LEVELS)]


def _affine(rows: tuple[float, float] = (1, 0), columns: tuple[float, float] = (1, 0)) -> tuple[float, ...]:
    """A map of rows and columns apart, each by (factor, offset)."""
    return rows[0], 0, rows[1], 0, columns[0], columns[1]


def _mirror(size: Size) -> tuple[float, ...]:
    return _affine(columns=(-1, size[1] - 1))


def _around(size: Size, down: tuple[float, float], right: tuple[float, float]) -> tuple[float, ...]:
    """A linear map of rows and columns, around the centre of the image."""
    row, column = (size[0] - 1) / 2, (size[1] - 1) / 2
    return (
        *down,
        row - down[0] * row - down[1] * column,
        *right,
        column - right[0] * row - right[1] * column,
    )


def _require_mode(augmentation: Augmentation) -> None:
    if augmentation.mode not in MODES:
        name = type(augmentation).__name__
        raise ArgumentError(f"{name}: mode is {shown(augmentation.mode)}, expected {' or '.join(MODES)}")


def _require_below(what: str, value: int, size: Size) -> None:
    """Raise ArgumentError unless ``value`` is less than both sides of the images."""
    if value >= min(size):
        raise ArgumentError(f"{what}, which is too large for images of {size[0]}x{size[1]} pixels")
