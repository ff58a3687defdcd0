"""Draws images, activations and filters as small PNG pictures, which the page enlarges."""

import base64
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.support.drawing import require_matplotlib
from cnn.support.libraries import require

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SEQUENTIAL, DIVERGING = "viridis", "PuOr_r"
SHADES = 255  # colours of a map; the last index of a palette is the transparent gap

MOST_MAPS, IN_A_ROW = 32, 8
MOST_NUMBERS, NUMBERS_IN_A_ROW = 512, 32
MOST_FILTERS, MOST_CHANNELS, FILTERS_IN_A_ROW = 32, 8, 16
SIDE, CELL = 64, 12  # pixels of a map, at most, and of a single number
GAP = 3
BY = " \N{MULTIPLICATION SIGN} "  # between the sizes of a shape

Drawn = dict[str, str]  # "src", the address of a picture, and "caption"


def image(values: Any) -> str:
    """An image (C, H, W), bytes or numbers, as the ``src`` of a picture; bytes are shown as they are."""
    Image = require("PIL.Image", "to draw pictures", "pillow")
    if values.dtype != np.uint8:
        low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
        values = ((values - low) / (high - low) * 255).round().astype(np.uint8)
    if len(values) not in (1, 3):
        values = values.mean(axis=0, keepdims=True).round().astype(np.uint8)
    return _as_src(Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)))


def activation(values: Any) -> Drawn:
    """A layer's output for one image, (C, H, W) or (F,), coloured from its lowest to its highest number."""
    values = np.nan_to_num(values)
    low, high = float(values.min()), float(values.max())
    if values.ndim == 3:
        count, (H, W), most = len(values), values.shape[1:], MOST_MAPS
        tiles, columns, side = values[:most], IN_A_ROW, SIDE
        what = f"channels of {H}{BY}{W}" if count > 1 else f"channel of {H}{BY}{W}"
    else:
        values = values.reshape(-1, 1, 1)
        count, most, tiles = len(values), MOST_NUMBERS, values[:MOST_NUMBERS]
        columns, side, what = NUMBERS_IN_A_ROW, CELL, "numbers" if count > 1 else "number"
    shown = f"{count:,} {what}" if count <= most else f"the first {most} of {count:,} {what}"
    sheet = _sheet([_indices(tile, low, high) for tile in tiles], columns, side)
    return {"src": _coloured(sheet, SEQUENTIAL), "caption": f"{shown}, from {low:.3g} to {high:.3g}"}


def heat(values: Any) -> str:
    """A map (H, W) of numbers of at least 0 as the ``src`` of a picture."""
    return _coloured(_indices(values, 0, float(values.max())), SEQUENTIAL)


def signed(values: Any) -> str:
    """A map (H, W) of numbers as the ``src`` of a picture, in which 0 is white."""
    limit = float(np.abs(values).max()) or 1.0
    return _coloured(_indices(values, -limit, limit), DIVERGING)


def filters(weight: Any) -> Drawn:
    """The weight (O, C, KH, KW) of a convolution; in colour if there are three channels."""
    weight = np.nan_to_num(weight)
    O, C, KH, KW = weight.shape
    limit = float(np.abs(weight).max()) or 1.0
    some = weight[:MOST_FILTERS] if C in (1, 3) else weight[:FILTERS_IN_A_ROW, :MOST_CHANNELS]
    caption = f"{O:,} {'filters' if O > 1 else 'filter'} of {KH}{BY}{KW}"
    caption += f" in {C:,} channels" if C > 1 else ""
    if C not in (1, 3):
        caption += ", a column for each filter and a row for each channel"
    if len(some) < O or some.shape[1] < C:
        channels = f" and {some.shape[1]} channels" if some.shape[1] < C else ""
        caption += f", here the first {len(some)} filters{channels}"
    caption += f", weights from {weight.min():.3g} to {weight.max():.3g}"
    if C == 3:
        tiles = [((0.5 + each / (2 * limit)) * 255).round().astype(np.uint8) for each in some]
        planes = [_sheet([tile[channel] for tile in tiles], IN_A_ROW, SIDE) for channel in range(C)]
        covered = _sheet([np.zeros((KH, KW), np.uint8)] * len(tiles), IN_A_ROW, SIDE) == 0
        Image = require("PIL.Image", "to draw pictures", "pillow")
        pixels = np.stack([*planes, np.where(covered, 255, 0).astype(np.uint8)], axis=-1)
        return {"src": _as_src(Image.fromarray(pixels)), "caption": f"{caption}, as colours"}
    columns, side = (IN_A_ROW, SIDE) if C == 1 else (len(some), SIDE // 2)
    tiles = [_indices(some[n, c], -limit, limit) for c in range(some.shape[1]) for n in range(len(some))]
    return {"src": _coloured(_sheet(tiles, columns, side), DIVERGING), "caption": caption}


def _indices(values: Any, low: float, high: float) -> Any:
    """``values`` as positions in a palette."""
    return ((values - low) * ((SHADES - 1) / ((high - low) or 1))).round().astype(np.uint8)


def _sheet(tiles: list[Any], columns: int, side: int) -> Any:
    """Tiles of one shape in rows, at most ``side`` pixels each; between them is the index of the gap."""
    resized = [_resized(tile, side) for tile in tiles]
    H, W = resized[0].shape
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (H + GAP) - GAP, columns * (W + GAP) - GAP), SHADES, np.uint8)
    for number, tile in enumerate(resized):
        top, left = number // columns * (H + GAP), number % columns * (W + GAP)
        sheet[top : top + H, left : left + W] = tile
    return sheet


def _resized(tile: Any, side: int) -> Any:
    """The tile with its points repeated, or averaged if it is larger than ``side``."""
    longest = max(tile.shape)
    if longest <= side:
        return tile.repeat(side // longest, axis=0).repeat(side // longest, axis=1)
    Image = require("PIL.Image", "to draw pictures", "pillow")
    H, W = (max(1, round(length * side / longest)) for length in tile.shape)
    return np.asarray(Image.fromarray(tile).resize((W, H), Image.Resampling.BOX))


def _coloured(indices: Any, colours: str) -> str:
    Image = require("PIL.Image", "to draw pictures", "pillow")
    picture = Image.fromarray(indices)
    picture.putpalette(_palette(colours))  # which makes it a picture of mode P
    return _as_src(picture, transparency=SHADES)


@cache
def _palette(name: str) -> bytes:
    """The shades of one of matplotlib's colour maps, and a last colour for the gap, which is transparent."""
    require_matplotlib("to colour activations")
    import matplotlib

    shades = matplotlib.colormaps[name](np.linspace(0, 1, SHADES), bytes=True)[:, :3]
    return shades.astype(np.uint8).tobytes() + bytes(3)


def _as_src(picture: "Picture", **options: Any) -> str:
    data = BytesIO()
    picture.save(data, "PNG", compress_level=1, **options)  # quickly: it stays on this machine
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
