"""Settings that say how the pictures of a data set become images of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn.data.fitting import require_fit
from cnn.data.readers.inspected import inspected
from cnn.support.arguments import shown, whole
from cnn.support.errors import ArgumentError

DIGIT = (28, 28)  # the default size with fit="digit"
SIDE = 64  # pixels; the default size if the pictures are larger or have several sizes


@dataclass(frozen=True)
class Pictures:
    """The shape of the images, and how a picture is fitted to it.

    Parameters
    ----------
    size
        Height and width in pixels, or one number for both. None: the size of the pictures, if all that are
        inspected have the same size of at most 64 pixels, otherwise 64.
    fit
        "crop" (the middle), "letterbox" (all of it, with bars), "stretch" (all of it, distorted) or "digit"
        (a handwritten digit, cut out and centred as in MNIST; grey, of 28x28 pixels by default).
    channels
        1 (grey) or 3 (colour). None: 1 if all pictures that are inspected are grey, otherwise 3.
    """

    size: tuple[int, int] | int | None = None
    fit: str = "crop"
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            sides = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
            if len(sides) != 2:
                raise ArgumentError(f"size is {shown(self.size)}, expected a height and a width in pixels")
            object.__setattr__(self, "size", tuple(whole("size", side) for side in sides))
        require_fit(self.fit)
        if self.channels not in (None, 1, 3):
            raise ArgumentError(f"channels is {shown(self.channels)}, expected 1 (grey) or 3 (colour)")
        if self.fit == "digit":
            if self.channels == 3:
                raise ArgumentError(
                    "fit is 'digit', which makes grey images, but channels is 3: leave it out"
                )
            object.__setattr__(self, "channels", 1)
            object.__setattr__(self, "size", self.size or DIGIT)

    @classmethod
    def of(cls, network: Any) -> "Pictures":
        """The settings of the network's training images; the defaults if it does not take pictures."""
        C, H, W = (*network.input_shape, 0, 0)[:3]
        if C not in (1, 3) or not H:
            return cls()
        return cls((H, W), network.preprocessing.fit if network.preprocessing else "stretch", C)

    def completed(self, folder: Path, names: Sequence[str]) -> "Pictures":
        """The same settings, with missing ones chosen for the pictures ``names`` in ``folder``."""
        if None not in (self.size, self.channels):
            return self
        sizes, are_grey = inspected(folder, names)
        own = sizes[0] if len(sizes) == 1 else (SIDE, SIDE)
        size = self.size or (own if max(own) <= SIDE else (SIDE, SIDE))
        return Pictures(size, self.fit, self.channels or (1 if are_grey else 3))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image; the settings are complete."""
        return self.channels, *self.size  # type: ignore

    @property
    def note(self) -> str:
        """A note on the complete settings, which is shown next to the name of the data set."""
        height, width = self.size  # type: ignore
        made = {"crop": "cropped to", "stretch": "stretched to", "letterbox": "letterboxed to"}
        how = made.get(self.fit, "as digits of")
        return f"pictures {how} {height}x{width}, {'colour' if self.channels == 3 else 'grey'}"
