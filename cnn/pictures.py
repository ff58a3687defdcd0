"""Photographs and scans made into images that a network takes."""

import io
import os
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn.data.files import open_file, unreadable
from cnn.errors import DataError, ShapeError
from cnn.libraries import require
from cnn.text import short

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Array = np.ndarray

# Those that hold pixels; Pillow would start another program for EPS.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")

MOST_BYTES = 1 << 30  # of a file: as many pixels as Pillow takes have fewer
FEW_PIXELS = 1 << 22  # that any file may have
MOST_PER_BYTE = 1 << 15  # pixels in a byte of a file: a blank page of fax, 1 bit a line, has no more

BOX = 20 / 28  # of the image: where the digits of MNIST lie in it
SIDE = 1024  # pixels of the longer side at which ink is looked for, so that large photographs are quick
THUMBNAIL = 64  # and at which light is looked at: shadows are large
SPREAD = 0.2  # of the longer side: how far around the ground is looked for
WINDOW = 1 / 3  # of the longer side: strokes are narrower, shadows are wider
DEEPEST = 0.4  # of the light is left in a shadow, at least
FAINTEST = 0.08  # of the light: what takes less is no ink
EDGE = 0.25  # of full ink: paler points belong to a stroke only beside darker ones
FINE = 4  # pixels for one of the image, while the strokes are worked on
STROKE = 2  # pixels of the image; a quarter of the digits of MNIST have thinner strokes


def read_picture(path: Path) -> "Picture":
    """The picture in the file ``path``, upright as its EXIF says: RGB or RGBA, 8 bits each.

    Of an animation it is the first frame. Floats and whole numbers of more than 8 bits are scaled from
    0..1, 0..255, 0..65535 or, beyond these, from their own range. Raises DataError for what is no
    picture, is damaged, or has more pixels than Pillow holds to be safe.
    """
    Image = require("PIL.Image", "to read pictures", "pillow")
    from PIL import ImageOps

    with open_file(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow can put up with is not worth a line
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise DataError(
                f"{path}: the file has {size:,} bytes: expected a picture, of at most {MOST_BYTES:,}"
            )
        try:
            # of a file in memory Pillow gets no more than there is, however much it asks for
            picture = Image.open(io.BytesIO(file.read()), formats=list(_suffixes().values()))
            _require_plausible(path, size, picture.size)
            return _in_8_bits(ImageOps.exif_transpose(picture))
        except DataError:
            raise
        except Image.UnidentifiedImageError:
            expected = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
            raise DataError(f"{path}: this is no picture that can be read: expected {expected}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            most = f"{Image.MAX_IMAGE_PIXELS:,}"
            raise DataError(f"{path}: the picture is too large: expected at most {most} pixels") from None
        except Exception as error:  # damaged files make Pillow stumble in every way there is
            reason = short(str(error), 200) or type(error).__name__
            raise DataError(f"{path}: the picture cannot be read ({reason}): it may be damaged") from error


def pictures_at(path: Path) -> list[Path]:
    """``path`` itself, or the pictures in it where it is a folder: by suffix, sorted, without hidden ones.

    Raises DataError for a folder that has none, and where there is nothing.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
        files = sorted(path.iterdir())
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    pictures = [file for file in files if file.suffix.lower() in _suffixes() and file.name[0] != "."]
    if not pictures:
        raise DataError(f"{path}: this folder has no pictures: expected .png, .jpg, .tif and their like")
    return pictures


def as_image(picture: "Picture", shape: tuple[int, ...]) -> Array:
    """``picture`` as a uint8 image of ``shape`` (C, H, W): grey or RGB, transparency as white.

    All of it is scaled to H x W, its aspect with it: a border would be something that the network has
    never seen. Raises ShapeError unless C is 1 or 3.
    """
    from PIL import Image

    C, H, W = shape
    if C not in (1, 3):
        raise ShapeError(f"a picture has 1 or 3 channels, the network was built for {C} in {shape}")
    opaque = _laid_on(picture, 255).convert("L" if C == 1 else "RGB")
    pixels = np.asarray(opaque.resize((W, H), Image.Resampling.BICUBIC))
    return np.ascontiguousarray(np.moveaxis(pixels.reshape(H, W, C), -1, 0))


def as_digit(picture: "Picture", shape: tuple[int, ...]) -> Array:
    """The digit in ``picture`` as a uint8 image of ``shape`` (1, H, W), white on black as in MNIST.

    Its ink, darker or lighter than the ground around it, is freed from uneven light and from specks,
    cut out, scaled into 20 of 28 pixels with its aspect kept, and put so that its centre of mass lies
    in the middle, (H/2, W/2): LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    Very thin strokes are thickened. Raises DataError where there is no ink, ShapeError unless the shape
    has one channel.
    """
    C, H, W = shape
    if C != 1:
        raise ShapeError(f"a digit has 1 channel, the network was built for {C} in {shape}")
    strokes = _strokes(_ink(_grey(picture)))
    return _centred(_thick_enough(_fitted(strokes, FINE * BOX * H, FINE * BOX * W)), H, W)


def _require_plausible(path: Path, size: int, sides: tuple[int, int]) -> None:
    """Raise DataError where a file of ``size`` bytes has a header that promises far more pixels."""
    width, height = sides
    most = FEW_PIXELS + MOST_PER_BYTE * size
    if width * height > most:
        raise DataError(
            f"{path}: the picture is too large, {width} x {height} pixels: "
            f"expected at most {most:,} in a file of {size:,} bytes"
        )


def _suffixes() -> dict[str, str]:
    """The format by suffix, of all that this Pillow reads."""
    Image = require("PIL.Image", "to read pictures", "pillow")
    known = Image.registered_extensions()
    return {suffix: name for suffix, name in known.items() if name in FORMATS and name in Image.OPEN}


def _in_8_bits(picture: "Picture") -> "Picture":
    from PIL import Image

    if picture.mode[0] in "IF":
        values = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        low, high = min(values.min(), 0), values.max()
        high = next((limit for limit in (1, 255, 65535) if high <= limit), high)
        picture = Image.fromarray(((values - low) / (high - low) * 255).round().astype(np.uint8))
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _laid_on(picture: "Picture", grey: int) -> "Picture":
    """``picture`` without transparency: on a ground of that grey."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    ground = Image.new("RGBA", picture.size, (grey, grey, grey, 255))
    return Image.alpha_composite(ground, picture.convert("RGBA"))


def _grey(picture: "Picture") -> Array:
    """Brightness from 0 to 255, at most SIDE pixels long."""
    ground = _visible_ground(picture) if picture.has_transparency_data else 255
    grey = np.asarray(_laid_on(picture, ground).convert("L"), dtype=np.float32)
    if np.ptp(grey) < FAINTEST * 255:
        raise _nothing()
    return _fitted(grey, SIDE, SIDE) if max(grey.shape) > SIDE else grey


def _visible_ground(picture: "Picture") -> int:
    """The grey that lets a drawing on transparent ground be seen."""
    grey, alpha = (np.asarray(picture.convert("RGBA").convert("LA"))[..., band] for band in (0, 1))
    drawn = grey[alpha > 127]
    if not drawn.size:
        return 255
    low, middle, high = np.percentile(drawn, (5, 50, 95))
    if high - low > 64:  # it has a ground of its own, as in a window with round corners
        return int(middle)
    return 0 if middle > 127 else 255


def _ink(grey: Array) -> Array:
    """The share of the light that each point takes from its ground; about 0 on the ground.

    Light multiplies: dividing by what the ground would show, rather than subtracting, makes ink in the
    shadow as dark as ink in the light.
    """
    from scipy import ndimage

    small = _fitted(grey, THUMBNAIL, THUMBNAIL) if max(grey.shape) > THUMBNAIL else grey
    around = ndimage.gaussian_filter(small, SPREAD * max(small.shape), mode="nearest")
    beyond = grey - _resized(around, grey.shape)
    if (beyond**3).sum() > 0:  # little differs from the ground, but that by much
        grey, small = 255 - grey, 255 - small
    light = np.maximum(_light(small, 0.8), 16)
    window = max(3, round(WINDOW * max(small.shape)))
    shade = ndimage.grey_closing(small / light, size=(window, window))  # what no stroke hides
    ground = _resized(light * np.maximum(shade, DEEPEST), grey.shape)
    return (ground - grey) / np.maximum(ground, 16)


def _light(grey: Array, quantile: float) -> Array:
    """The paraboloid below which that share of the points lies: light that falls off to the sides.

    Least squares, weighted anew with the distances until they are least absolute deviations.
    """
    H, W = grey.shape
    y, x = np.mgrid[-1 : 1 : H * 1j, -1 : 1 : W * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x + y * y], axis=-1)
    known, values = terms.reshape(-1, 4), grey.ravel()
    weights = np.ones(len(values))
    for _ in range(10):
        factors = np.linalg.lstsq(known * weights[:, None], values * weights, rcond=None)[0]
        beyond = values - known @ factors
        weights = np.sqrt(np.where(beyond > 0, quantile, 1 - quantile) / (np.abs(beyond) + 1))
    return (terms @ factors).astype(np.float32)


def _strokes(ink: Array) -> Array:
    """The digit cut out of ``ink``, from 0 on the ground to 1, without noise and specks."""
    from scipy import ndimage

    middle = np.median(ink)
    noise = 1.5 * np.median(np.abs(ink - middle))  # the standard deviation, where most is ground
    floor = max(min(middle + 4 * noise, ink.max() / 2), FAINTEST)  # a digit may fill most of its picture
    if not (ink > floor).any():
        raise _nothing()
    full = np.percentile(ink[ink > floor], 90)
    everywhere = np.ones((3, 3))
    parts, _ = ndimage.label(ink > floor + EDGE * (full - floor), everywhere)
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() < max(3, 0.1 * sizes.sum()):  # specks here and there
        raise _nothing()
    digit = np.append(False, sizes >= 0.1 * sizes.max())[parts]
    if any(_runs_across(digit, axis) > 1 for axis in (0, 1)):
        raise DataError("lines run from edge to edge of the picture: crop it, or use paper without lines")
    strokes = ((ink - floor) / (full - floor)).clip(0, 1) * ndimage.binary_dilation(digit, everywhere)
    rows, columns = np.nonzero(strokes > 0.1)
    return strokes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _runs_across(mask: Array, axis: int) -> int:
    """How many bands of rows (or columns) are ink from edge to edge: one can be a stroke, more are ruled."""
    full = mask.mean(axis=1 - axis) > 0.9
    return int(np.count_nonzero(full[1:] & ~full[:-1]) + full[0])


def _nothing() -> DataError:
    return DataError("the picture shows nothing: expected a digit darker or lighter than its background")


def _thick_enough(strokes: Array) -> Array:
    """``strokes`` at FINE times their last size, with their contrast restored, widened where below STROKE."""
    from scipy import ndimage

    solid = np.median(strokes[strokes > 0.1 * strokes.max()])  # half of the ink of MNIST is about white
    strokes = (strokes / solid).clip(0, 1)
    cross = ndimage.generate_binary_structure(2, 1)
    while _width(strokes > 0.5) < STROKE * FINE:
        strokes = ndimage.grey_dilation(np.pad(strokes, 1), footprint=cross)
    return strokes


def _width(mask: Array) -> float:
    """About how wide its strokes are: the distances from their edges are a quarter of that on average."""
    from scipy import ndimage

    return 4 * ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean() - 2


def _centred(strokes: Array, H: int, W: int) -> Array:
    """``strokes`` in the box, by their centre of mass in the middle; smaller where they would reach out."""
    from scipy import ndimage

    for share in np.arange(1, 0, -0.05):
        digit = _fitted(strokes, share * BOX * H, share * BOX * W)
        digit = (digit * (255 / digit.max())).round().astype(np.uint8)
        down, right = ndimage.center_of_mass(digit)
        top, left = round(H / 2 - down), round(W / 2 - right)
        bottom, end = top + digit.shape[0], left + digit.shape[1]
        if min(top, left) >= 0 and bottom <= H and end <= W:
            break
    image = np.zeros((1, H, W), dtype=np.uint8)
    image[0, top:bottom, left:end] = digit
    return image


def _fitted(pixels: Array, height: float, width: float) -> Array:
    """``pixels`` scaled to fit into ``height`` x ``width``, their aspect kept."""
    factor = min(height / pixels.shape[0], width / pixels.shape[1])
    return _resized(pixels, tuple(max(1, round(side * factor)) for side in pixels.shape))


def _resized(pixels: Array, shape: tuple[int, ...]) -> Array:
    """``pixels`` scaled to ``shape`` (H, W): averaged where it becomes smaller, else interpolated."""
    from PIL import Image

    smaller = shape[0] * shape[1] < pixels.size
    method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    image = Image.fromarray(pixels.astype(np.float32, copy=False))
    return np.asarray(image.resize((shape[1], shape[0]), method))
