"""Reads photographs and scans."""

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn.data.readers.common import is_hidden, open_file, unreadable
from cnn.support.errors import DataError
from cnn.support.libraries import require
from cnn.support.signatures import CAMERA, PHONE, describe_contents, describe_suffix
from cnn.support.text import short

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Array = np.ndarray

# Formats that contain pixels; Pillow would start another program for EPS.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")

MOST_BYTES = 1 << 30  # of a file; the largest picture that Pillow accepts has fewer
FEW_PIXELS = 1 << 22  # allowed in any file
MOST_PER_BYTE = 1 << 15  # pixels per byte of a file; a blank fax page, with 1 bit per line, has no more

SCALES = (1, 255, 1023, 4095, 16383, 65535)  # the brightest value of floats, or of 8, 10, 12, 14, 16 bits


@contextmanager
def tolerating_faults() -> Iterator[None]:
    """Silence Pillow's warnings about faults that it tolerates.

    The filters of warnings belong to the whole process, so threads that read pictures share one such block.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_picture(path: Path) -> "Picture":
    """:func:`decode` without Pillow's warnings."""
    with tolerating_faults():
        return decode(path)


def decode(path: Path) -> "Picture":
    """Read the picture in the file at ``path``, as :func:`decode_bytes` does."""
    with open_file(path) as file:
        _require_suffix(path)
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise DataError(
                f"{path}: the file has {size:,} bytes: expected a picture of at most {MOST_BYTES:,} bytes"
            )
        try:
            data = file.read()  # from memory Pillow cannot read more than the file contains
        except MemoryError:
            raise _too_large_for_memory(path) from None
        except OSError as error:
            raise _damaged(path, error) from error
    return decode_bytes(path, data)


def decode_bytes(path: Path, data: bytes) -> "Picture":
    """A picture from what its file contains, rotated according to its EXIF data: RGB or RGBA, 8 bits each.

    Only the first frame of an animation is read. Values of more than 8 bits are scaled by
    :func:`_in_bytes`. Raises DataError, which names ``path``, if the file is not a picture, is damaged, or
    has more pixels than Pillow considers safe.
    """
    Image = require("PIL.Image", "to read pictures", "pillow")
    from PIL import ImageOps

    _require_suffix(path)
    try:
        picture = Image.open(io.BytesIO(data), formats=list(_suffixes().values()))
        if Image.MAX_IMAGE_PIXELS and picture.width * picture.height > Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError  # which Pillow only warns of, up to twice as many
        _require_plausible(path, len(data), picture.size)
        is_deep = any(";16" in str(tile) for tile in picture.tile)
        return _in_8_bits(ImageOps.exif_transpose(picture), is_deep)
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from None
    except Image.UnidentifiedImageError:
        raise _unknown(path, describe_contents(data)) from None
    except Image.DecompressionBombError:
        most = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise DataError(f"{path}: the picture is too large: expected at most {most} pixels") from None
    except MemoryError:
        raise _too_large_for_memory(path) from None
    except Exception as error:  # damaged files cause any kind of exception in Pillow
        raise _damaged(path, error) from error


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name; camera formats, which cannot be read, are pictures too."""
    return Path(name).suffix.lower() in {*_suffixes(), *CAMERA, *PHONE} and not is_hidden(name)


def pictures_at(path: Path) -> list[Path]:
    """``path`` itself or, if it is a folder, the pictures in it and in its folders.

    They are found by suffix and sorted, first those of the folder itself. Hidden files and folders and links
    to folders are left out. Raises DataError if there are no pictures, or if a folder cannot be read.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    pictures = []
    for folder, inside, files in os.walk(path, onerror=_raise_unreadable):
        inside[:] = sorted(name for name in inside if not is_hidden(name))
        pictures += [Path(folder, name) for name in sorted(files) if is_picture(name)]
    if not pictures:
        raise DataError(
            f"{path}: this folder contains no pictures: expected .png, .jpg, .tif or similar files"
        )
    return pictures


def _raise_unreadable(error: OSError) -> None:
    raise unreadable(error.filename, error) from error


def _require_suffix(path: Path) -> None:
    """Raise DataError if the file's suffix is that of something else than a picture."""
    if description := describe_suffix(path.suffix):
        raise _unknown(path, description)


def _too_large_for_memory(path: Path) -> DataError:
    return DataError(f"{path}: the picture does not fit into memory: scale it down")


def _damaged(path: Path, error: Exception) -> DataError:
    reason = short(str(error), 200) or type(error).__name__
    return DataError(f"{path}: the picture cannot be read ({reason}): it may be damaged, copy it again")


def _unknown(path: Path, description: str | None) -> DataError:
    """The error for a file in none of the FORMATS; ``description`` says what it is and what to do."""
    if description is None:
        description = f"not a picture that can be read: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    else:
        description = description.replace(": ", " and cannot be read: ", 1)
    return DataError(f"{path}: this is {description}")


def _require_plausible(path: Path, size: int, sides: tuple[int, int]) -> None:
    """Raise DataError if the header of a file of ``size`` bytes promises implausibly many pixels."""
    width, height = sides
    most = FEW_PIXELS + MOST_PER_BYTE * size
    if width * height > most:
        raise DataError(
            f"{path}: the picture is too large, {width} x {height} pixels: "
            f"expected at most {most:,} in a file of {size:,} bytes"
        )


@cache
def _suffixes() -> dict[str, str]:
    """The supported formats of the installed Pillow, by suffix."""
    Image = require("PIL.Image", "to read pictures", "pillow")
    known = Image.registered_extensions()
    return {suffix: name for suffix, name in known.items() if name in FORMATS and name in Image.OPEN}


def _in_8_bits(picture: "Picture", is_deep: bool) -> "Picture":
    """``picture`` as RGB or RGBA; ``is_deep`` means that the file has 16 bits per colour.

    Pillow keeps all bits of grey values, but only the upper 8 bits of deep colours, which leaves few levels
    of a picture with 10 or 12 bits.
    """
    from PIL import Image

    if picture.mode[0] in "IF":
        exact = np.float32 if picture.mode[:4] == "I;16" else np.float64
        picture = Image.fromarray(_in_bytes(np.asarray(picture, dtype=exact)))
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    picture = picture.convert(mode)
    if is_deep:
        pixels = np.array(picture)
        pixels[..., :3] = _in_bytes(pixels[..., :3] * 257.0)
        picture = Image.fromarray(pixels)
    return picture


def _in_bytes(values: Array) -> Array:
    """``values`` scaled to 0..255, from the first of the SCALES that holds them.

    Their own range is used if the scale would leave fewer than 16 of 256 levels, as for a picture between
    30,000 and 31,000, and beyond 16 bits. Negative values extend the range. One point in 10,000, and at
    least one, may lie outside, since cameras have hot pixels. Infinities become the ends of the range, and
    NaN becomes the median.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise DataError("all values of the picture are NaN or infinite: expected finite brightness")
    few = min(ceil(finite.size / 10_000), (finite.size - 1) // 2)
    ordered = np.partition(finite, (few, finite.size - 1 - few))
    least, most = float(ordered[few]), float(ordered[finite.size - 1 - few])
    low, high = min(least, 0.0), float(next((scale for scale in SCALES if most <= scale), most))
    if 0 < most - least < (high - low) / 16:
        low, high = least, most
    numbers = np.nan_to_num(values, nan=float(np.median(finite)), posinf=high, neginf=low).clip(low, high)
    return ((numbers - low) / (high - low) * 255).round().astype(np.uint8)


def laid_on(picture: "Picture", grey: int) -> "Picture":
    """``picture`` without transparency, on a background of this grey."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    ground = Image.new("RGBA", picture.size, (grey, grey, grey, 255))
    return Image.alpha_composite(ground, picture.convert("RGBA"))
