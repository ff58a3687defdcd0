"""Finds the digit in a photograph or scan, and centres it as in MNIST."""

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from cnn.data.readers.photographs import laid_on
from cnn.support.errors import DataError, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Array = np.ndarray

BOX = 20 / 28  # of the image: the box of the digits in MNIST
SIDE = 1024  # pixels of the longer side at which ink is looked for, so that large photographs are quick
THUMBNAIL = 64  # and at which light is looked at: shadows are large
SPREAD = 0.2  # of the longer side: the neighbourhood in which the background is estimated
WINDOW = 1 / 3  # of the longer side: strokes are narrower, shadows are wider
DEEPEST = 0.4  # the minimum share of the light in a shadow
FAINTEST = 0.08  # of the light: ink absorbs at least this share
EDGE = 0.25  # of full ink: paler points belong to a stroke only next to darker ones
FINE = 4  # pixels per pixel of the image while the strokes are processed
STROKE = 2  # pixels of the image; a quarter of the digits of MNIST have thinner strokes

# Shares of the shorter side of a picture, for objects at the edges that are not ink:
DEEP = 0.25  # only a digit reaches this far
MARGIN = 0.12  # borders and lines are inside it
THIN = 0.05  # the maximum width of a line
SHEET = 0.83  # of the rectangle around it is filled by a sheet of paper, never by a digit
FULL = 0.98  # of an edge is covered by a border or a line, never by a digit that was cut out closely


def as_digit(picture: "Picture", shape: tuple[int, ...]) -> Array:
    """The digit in ``picture`` as a uint8 image of ``shape`` (1, H, W), white on black as in MNIST.

    Its ink is darker or lighter than the background. Uneven light and specks are removed; the digit is cut
    out, scaled into 20 of 28 pixels with its aspect ratio kept, and placed with its centre of mass in the
    middle, (H/2, W/2): LeCun, Cortes and Burges, "The MNIST database of handwritten digits". Very thin
    strokes are thickened. Raises DataError if there is no ink, ShapeError unless the shape has one channel.
    """
    C, H, W = shape
    if C != 1:
        raise ShapeError(
            f"fit is 'digit', which makes grey images, but the network takes {C} channels in {shape}: choose "
            "crop, letterbox or stretch"
        )
    strokes = _strokes(*_ink(_grey(picture)))
    return _centred(_thick_enough(_fitted(strokes, FINE * BOX * H, FINE * BOX * W)), H, W)


def _grey(picture: "Picture") -> Array:
    """The brightness from 0 to 255; the longer side is at most SIDE pixels."""
    ground = _visible_ground(picture) if picture.has_transparency_data else 255
    grey = np.asarray(laid_on(picture, ground).convert("L"), dtype=np.float32)
    if np.ptp(grey) < FAINTEST * 255:
        raise _nothing()
    return _fitted(grey, SIDE, SIDE) if max(grey.shape) > SIDE else grey


def _visible_ground(picture: "Picture") -> int:
    """A grey on which a drawing with a transparent background is visible."""
    grey, alpha = (np.asarray(picture.convert("RGBA").convert("LA"))[..., band] for band in (0, 1))
    drawn = grey[alpha > 127]
    if not drawn.size:
        return 255
    low, middle, high = np.percentile(drawn, (5, 50, 95))
    if high - low > 64:  # it has its own background, like a window with rounded corners
        return int(middle)
    return 0 if middle > 127 else 255


def _ink(grey: Array) -> tuple[Array, Array]:
    """(share of the light that each point absorbs, about 0 on the background; mask of what was removed).

    Objects at the edges that are not ink, such as the border of a scan, the table around the paper, a shadow
    or a line of a form, are replaced by the paper next to them.
    """
    dark = _is_dark(grey)
    if _is_framed(grey, not dark) or (
        _is_dark(_middle(grey)) != dark and (_shows_a_sheet(grey, not dark) or _is_bordered(grey, not dark))
    ):
        dark = not dark  # the table was mistaken for paper, and the paper for ink
    ink = _absorbed(grey, dark)
    removed = np.zeros(ink.shape, dtype=bool)
    for _ in range(4):  # the rest is clearer once the background is only paper
        strange = _from_the_edges(ink, removed)
        if not (strange & ~removed).any():
            break
        removed |= strange
        grey = _replaced(grey, strange, ink > _floor(ink))
        ink = _absorbed(grey, dark)
    return ink, removed


def _is_dark(grey: Array) -> bool:
    """Whether the ink is darker than the background: few points differ from the background, but strongly."""
    from scipy import ndimage

    small = _fitted(grey, THUMBNAIL, THUMBNAIL) if max(grey.shape) > THUMBNAIL else grey
    around = ndimage.gaussian_filter(small, SPREAD * max(small.shape), mode="nearest")
    beyond = grey - _resized(around, grey.shape)
    return bool((beyond**3).sum() <= 0)


def _absorbed(grey: Array, dark: bool) -> Array:
    """The share of the light that the ink absorbs; ink is darker or lighter than the background.

    Light is multiplicative: dividing by the expected background, instead of subtracting, makes ink in a
    shadow as dark as ink in the light.
    """
    from scipy import ndimage

    grey = grey if dark else 255 - grey
    small = _fitted(grey, THUMBNAIL, THUMBNAIL) if max(grey.shape) > THUMBNAIL else grey
    light = np.maximum(_light(small, 0.8), 16)
    window = max(3, round(WINDOW * max(small.shape)))
    shade = ndimage.grey_closing(small / light, size=(window, window))  # the background without strokes
    ground = _resized(light * np.maximum(shade, DEEPEST), grey.shape)
    return (ground - grey) / np.maximum(ground, 16)


def _middle(pixels: Array) -> Array:
    """``pixels`` without the area near the edges."""
    margin = int(MARGIN * min(pixels.shape))
    return pixels[margin : pixels.shape[0] - margin, margin : pixels.shape[1] - margin]


def _shows_a_sheet(grey: Array, is_light: bool) -> bool:
    """Whether the largest light (or dark) part, with its holes filled, is a sheet of paper.

    A sheet fills its bounding rectangle, but no digit does: an ellipse fills 79 percent of it.
    """
    from scipy import ndimage

    small = _fitted(grey, THUMBNAIL, THUMBNAIL) if max(grey.shape) > THUMBNAIL else grey
    y, x = np.indices(small.shape)
    known = np.stack([x.ravel(), y.ravel(), np.ones(small.size)], axis=1)
    even = small - (known @ np.linalg.lstsq(known, small.ravel())[0]).reshape(small.shape)
    between = np.percentile(even, (2, 98)).mean()
    parts, count = ndimage.label(even > between if is_light else even < between)
    if not count:
        return False
    sizes = np.bincount(parts.ravel())[1:]
    large = np.append(False, sizes > 0.1 * sizes.max())[parts]
    (rectangle,) = ndimage.find_objects(large.astype(np.uint8))
    sheet = _between(large[rectangle]) & _between(large[rectangle].T).T
    return bool(sheet.mean() > SHEET and sheet.size > 0.3 * small.size)


def _between(mask: Array) -> Array:
    """A mask of all points between the first and the last point of each row."""
    return np.logical_or.accumulate(mask, 1) & np.logical_or.accumulate(mask[:, ::-1], 1)[:, ::-1]


def _is_bordered(grey: Array, dark: bool) -> bool:
    """Whether an edge, but not the area next to it, is covered by dark (or light) points."""
    ink = _absorbed(grey, dark)
    return any(_next_to_border(lines) < 0.35 for lines in _from_each_side(ink > _floor(ink)))


def _is_framed(grey: Array, dark: bool) -> bool:
    """Whether a dark (or light) border, rather than paper, runs along all edges; a digit may touch it."""
    between = np.percentile(_middle(grey), (2, 98)).mean()
    sides = _from_each_side((grey < between) == dark)
    return bool(np.mean([_next_to_border(lines) for lines in sides]) < 0.55)


def _next_to_border(lines: Array) -> float:
    """How much of the lines next to a border, the first of ``lines``, is covered; infinity without one."""
    covered = lines.mean(axis=1)
    border = int(np.argmin(covered > FULL))
    soon = max(1, round(0.03 * min(lines.shape)))
    return float(covered[border : border + soon].mean()) if border else np.inf


def _from_the_edges(ink: Array, removed: Array) -> Array:
    """A mask of ``ink`` that is connected to an edge of the picture and is not part of a digit.

    A digit reaches into the middle of the picture, or is its only ink. Other objects do not reach so far.
    A digit may touch the edge itself, or a border of the picture: then only ink that covers most of an edge
    is not part of it. The pale rim of a shadow can reach far, so its darker parts are inspected one after
    the other.
    """
    from scipy import ndimage

    found = np.zeros(ink.shape, dtype=bool)
    reach = round(DEEP * min(ink.shape))
    deep = (slice(reach, ink.shape[0] - reach), slice(reach, ink.shape[1] - reach))
    floor = _floor(ink)
    inner = ink[deep][ink[deep] > floor]
    highest = max(floor, 0.35 * np.percentile(inner, 90)) if inner.size else floor
    for level in np.geomspace(floor, highest, 5):
        parts, count = ndimage.label(ink > level, np.ones((3, 3)))
        touches, reaches = np.zeros((2, count + 1), dtype=bool)
        for lines in _from_each_side(parts):
            touches[lines[0]] = True
        reaches[parts[deep]] = True
        touches[0] = False
        found |= (touches & ~reaches)[parts]
        if not (touches & reaches).any():
            break
    inside = np.count_nonzero((parts > 0) & ~found)
    if not (touches & reaches).any() and inside > 0.05 * np.count_nonzero(found):
        return found
    separate, count = ndimage.label(found, np.ones((3, 3)))
    edges = [lines[0] for lines in _from_each_side(separate)]
    points = np.array([np.bincount(edge, minlength=count + 1) for edge in edges])
    long = (points > np.array([[edge.size] for edge in edges]) / 2).any(axis=0)
    long |= (np.minimum(points[::2], points[1::2]) > 0).any(axis=0)  # across the picture
    long[np.array([edge[[0, -1]] for edge in edges])] = True  # in a corner
    long[0] = False
    borders = _borders(parts > 0, removed)
    _require_apart((touches & reaches)[parts][~borders.all(axis=1)][:, ~borders.all(axis=0)])
    return borders | long[separate]


def _require_apart(digit: Array) -> None:
    """Raise DataError if a part of ``digit`` lies along an edge, though it was not cut out closely.

    Then the digit touches something that lies there and is neither of one width nor as long as the edge.
    """
    if not digit.any():
        return
    near = ceil(MARGIN / 2 * min(digit.shape))
    sides = _from_each_side(digit)
    top, bottom, left, right = (side[:near].any() for side in sides)
    ends = ceil(near / 2)
    lies = [side[0].mean() > 0.4 or side[:ends, :ends].all() or side[:ends, -ends:].all() for side in sides]
    if any(lies) and not (top and bottom) and not (left and right):
        raise DataError("an object at an edge of the picture touches the digit: crop the picture")


def _borders(ink: Array, removed: Array) -> Array:
    """The lines along the edges that are ink from corner to corner: borders, and thin lines near them."""
    found = np.zeros(ink.shape, dtype=bool)
    side = min(ink.shape)
    near = max(1, round(0.015 * side))
    if max(ink.shape) > 2.5 * side:  # a digit 1 fills such a picture
        return found
    sides = (_from_each_side(pixels) for pixels in (ink | removed, removed, found))
    for lines, gone, marked in zip(*sides, strict=True):
        covered = lines[: max(1, round((MARGIN + THIN) * side))].mean(axis=1)
        border = int(np.argmin(np.append(covered > FULL, False)))
        if not gone[:border].all() and (covered[border : border + 1] > 0.7).any():  # it has a soft rim
            border += int(np.argmin(np.append(covered[border : border + 2 * near] > 0.2, False)))
        marked[:border] = True
        for start, end in _bands(covered[border:] > 0.7) + border:
            around = covered[[max(start - near, 0), min(end + near, len(covered)) - 1]]
            if end - start <= THIN * side and covered[start:end].max() > FULL and around.max() < 0.4:
                marked[start:end] = True
    return found


def _from_each_side(pixels: Array) -> tuple[Array, ...]:
    """Views of ``pixels`` whose first row is the top, bottom, left and right edge."""
    return pixels, pixels[::-1], pixels.T, pixels.T[::-1]


def _replaced(grey: Array, strange: Array, ink: Array) -> Array:
    """``grey`` with everything ``strange`` replaced by the nearest paper."""
    from scipy import ndimage

    blurred = 2 + max(grey.shape) // 200  # points around it
    strange = ndimage.binary_dilation(strange, np.ones((3, 3)), iterations=blurred)
    if (strange | ink).all():
        raise _nothing()
    y, x = ndimage.distance_transform_edt(strange | ink, return_distances=False, return_indices=True)
    return np.where(strange, grey[y, x], grey)


def _light(grey: Array, quantile: float) -> Array:
    """A paraboloid above that share of the points: a model of light that falls off to the sides.

    It is fitted by iteratively reweighted least squares, which converge to least absolute deviations.
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


def _strokes(ink: Array, strange: Array) -> Array:
    """The digit cut out of ``ink``, from 0 on the background to 1, without noise and specks.

    ``strange`` is a mask of what was removed.
    """
    from scipy import ndimage

    floor = _floor(ink)
    if not (ink > floor).any():
        raise _nothing()
    full = np.percentile(ink[ink > floor], 90)
    if floor == FAINTEST:
        floor = min(floor, 0.2 * full)  # all of a pale stroke
    everywhere = np.ones((3, 3))
    parts, _ = ndimage.label(ink > max(FAINTEST, floor + EDGE * (full - floor)), everywhere)
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() < max(3, 0.1 * sizes.sum()):  # only specks
        raise _nothing()
    digit = np.append(False, sizes >= 0.1 * sizes.max())[parts]
    if _is_ruled(parts > 0, strange) or _is_ruled(parts.T > 0, strange.T):
        raise DataError("lines run from edge to edge of the picture: crop it, or use paper without lines")
    strokes = ((ink - floor) / (full - floor)).clip(0, 1) * ndimage.binary_dilation(digit, everywhere)
    rows, columns = np.nonzero(strokes > 0.1)
    return strokes[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _floor(ink: Array) -> float:
    """The level below which there is only noise."""
    middle = np.median(ink)
    noise = 1.5 * np.median(np.abs(ink - middle))  # the standard deviation, if most points are background
    return float(max(min(middle + 4 * noise, ink.max() / 2), FAINTEST))  # a digit may fill its picture


def _is_ruled(ink: Array, removed: Array) -> bool:
    """Whether several bands of rows are ink from edge to edge; a single band can be a stroke.

    If a line was removed near an edge, a single thin band is a line too.
    """
    gone = removed.mean(axis=1) > 0.5
    lines = _bands(gone & ~(gone.cumprod() | gone[::-1].cumprod()[::-1]).astype(bool))  # no borders
    bands = _bands(((ink | removed).mean(axis=1) > 0.9) & ~gone)
    is_thin = np.diff(bands) <= THIN * min(ink.shape)
    return len(bands) > 1 or bool(len(lines) and is_thin.any())


def _bands(flags: Array) -> Array:
    """Where each run of ``flags`` begins, and where it ends."""
    return np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)


def _nothing() -> DataError:
    return DataError("the picture shows nothing: expected a digit darker or lighter than its background")


def _thick_enough(strokes: Array) -> Array:
    """``strokes`` at FINE times the final size, with restored contrast, widened to at least STROKE."""
    from scipy import ndimage

    solid = np.median(strokes[strokes > 0.1 * strokes.max()])  # half of the ink of MNIST is about white
    strokes = (strokes / solid).clip(0, 1)
    cross = ndimage.generate_binary_structure(2, 1)
    while _width(strokes > 0.5) < STROKE * FINE:
        strokes = ndimage.grey_dilation(np.pad(strokes, 1), footprint=cross)
    return strokes


def _width(mask: Array) -> float:
    """The approximate stroke width: four times the mean distance from the edges of the strokes."""
    from scipy import ndimage

    return 4 * ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask].mean() - 2


def _centred(strokes: Array, H: int, W: int) -> Array:
    """``strokes`` with their centre of mass in the middle; smaller if they would exceed the image."""
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
    """``pixels`` scaled to fit into ``height`` x ``width``, with their aspect ratio kept."""
    factor = min(height / pixels.shape[0], width / pixels.shape[1])
    return _resized(pixels, tuple(max(1, round(side * factor)) for side in pixels.shape))


def _resized(pixels: Array, shape: tuple[int, ...]) -> Array:
    """``pixels`` scaled to ``shape`` (H, W): averaged if it becomes smaller, otherwise interpolated."""
    from PIL import Image

    smaller = shape[0] * shape[1] < pixels.size
    method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    image = Image.fromarray(pixels.astype(np.float32, copy=False))
    return np.asarray(image.resize((shape[1], shape[0]), method))
