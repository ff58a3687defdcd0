"""Convolution by Winograd's F(4x4, 3x3): for which shapes, and with which sizes."""

from functools import cache, lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from backends.cpu.compiled import winograd
from backends.cpu.compiled.jit import MULTIPLICATIONS, thread_count
from backends.cpu.compiled.products import inner_product, lanes
from backends.cpu.compiled.transforms import POINTS
from backends.cpu.compiled.vectors import MANY_REGISTERS
from backends.cpu.compiled.winograd import ACROSS, LINE, ROOM, SHORT, TABLES, TALL
from backends.cpu.kernels.launching import INDICES, NO_BYTES, Launching, function_of, or_nothing
from backends.kernels.functions import Function
from backends.kernels.window import Pair, Window
from backends.memory import Array, Shape

# Panels in a block, rows at once, and channels at a time: measured, with 512 KB of second cache and AVX2, and
# with 1 MB and AVX-512.
PANELS, ROWS, DEPTH = (2, 32, 256) if MANY_REGISTERS else (4, 20, 256)
VECTORS = 16  # in a block of the gradient of the weight
# Blocks are twice as large with up to so many input channels (with AVX-512 this has not been measured), and
# in the gradient of the weight with at least MANY_CHANNELS, in and out, if there are enough such blocks.
NARROW, MANY_CHANNELS, ENOUGH_BLOCKS = 0 if MANY_REGISTERS else 32, 256, 2
FLOAT32 = np.dtype(np.float32)

# Measured on AVX2: faster from 16 channels in and out, with 8 as fast as the direct kernel at best. With
# AVX-512 that one is faster itself, and 16 channels are 0.8 to 1.5 times as fast.
LEAST_CHANNELS = 24 if MANY_REGISTERS else 16
LEAST_SAVING = 2  # below this the transforms cost what fewer multiplications save
# The gradient of the weight: 16 channels are 1.2 to 1.5 times as fast; with AVX-512 it has not been measured.
LEAST_CHANNELS_OF_WEIGHT, LEAST_SAVING_OF_WEIGHT = 64 if MANY_REGISTERS else 16, 2.5


class Plan(NamedTuple):
    """How a convolution is cut up; ``shape`` has the ``sizes`` as its loops read them."""

    sizes: winograd.WinogradSizes
    shape: Array
    tall_size: int  # numbers in a panel of weights
    short_size: int
    weights_point: int  # numbers of weights at each point
    size: int  # numbers of scratch for each part
    indices: int  # in the tables of each part
    blocks: int
    work: int  # in elements moved


class Blocks(NamedTuple):
    """The blocks of a convolution, or of the gradient of a weight, which has no tiles of rows."""

    tiles: Pair
    panels: int
    rows: int  # output channels that are kept at a time
    tall: int = 0
    short: int = 0
    at_once: int = 0


class WinogradKernels(Launching):
    """The calls of the loops in ``backends/cpu/compiled/winograd.py``."""

    def uses_winograd(self, channels: int, y_shape: Shape, window: Window, groups: int, dtype: Any) -> bool:
        plain = window.size == (3, 3) and window.stride == window.dilation == (1, 1) and groups == 1
        if not plain or window.direct or dtype != FLOAT32:
            return False
        return min(channels, y_shape[0]) >= LEAST_CHANNELS and _saving(y_shape) >= LEAST_SAVING

    def _uses_winograd_grad_weight(
        self, channels: int, dy_shape: Shape, window: Window, groups: int, dtype: Any
    ) -> bool:
        """The same for the gradient of the weight."""
        saves = _saving(dy_shape) >= LEAST_SAVING_OF_WEIGHT
        wide = min(channels, dy_shape[0]) >= LEAST_CHANNELS_OF_WEIGHT
        return saves and wide and self.uses_winograd(channels, dy_shape, window, groups, dtype)

    def _winograd(
        self, x: Array, weight: Array, bias: Array | None, out: Array, padding: Pair, *,
        formula: Function | None = None, turned: bool = False, pool: bool = False,
        winner: Array | None = None, scale: Array | None = None, moments: tuple[Array, Array] | None = None,
    ) -> None:  # fmt: skip
        """``out`` = the function of the convolution plus ``bias``; with ``pool`` after 2x2 max pooling.

        Without ``winner``, what is pooled is multiplied by ``scale`` before the bias is added.
        With ``turned``, the weight's channels change places, and its kernels are turned by half a turn.
        ``moments``: where the mean and the variance of each output channel are written.
        """
        O, C = weight.shape[:2]
        w_row, w_column = 9 * C, 9
        if turned:
            O, C, w_row, w_column = C, O, w_column, w_row
        plan = _plan(x.shape, out.shape, padding, pool)
        tall, short = _row_tiles(O)
        parts = min(plan.blocks, thread_count(plan.work))
        weight_parts = thread_count(POINTS * O * C)
        weights, kernels, scratch, sums = self._vectors(
            x.dtype, POINTS * plan.weights_point, weight_parts * 9 * plan.tall_size, parts * plan.size,
            4 * plan.blocks * O if moments else 1,
        )  # fmt: skip
        (tables,) = self._vectors(INDICES, parts * plan.indices, name="winograd")
        panel_sizes = plan.tall_size, plan.short_size
        winograd.transform_weights(
            x.dtype,
            (
                weight, weights, kernels, O, C, w_row, w_column, int(turned), tall, short, *panel_sizes,
                lanes(x.dtype),
            ),
            weight_parts,
        )  # fmt: skip
        winograd.convolve(
            x.dtype,
            (
                out, NO_BYTES if winner is None else winner, int(winner is not None), x, weights,
                plan.weights_point, *panel_sizes, or_nothing(bias, x), int(bias is not None),
                or_nothing(scale, x), int(scale is not None), int(pool), *function_of(formula, x.dtype),
                _in_order(lanes(x.dtype)), sums, int(moments is not None), plan.shape, scratch, plan.size,
                tables,
            ),
            parts,
        )  # fmt: skip
        if moments:
            arguments = (sums, *moments, O, plan.blocks)
            winograd.finish_moments(x.dtype, arguments, thread_count(sums.size))

    def _winograd_grad_weight(self, x: Array, dy: Array, out: Array, padding: Pair) -> None:
        """``out`` = the gradient of the weight."""
        O, C = out.shape[:2]
        plan, offsets = _gradient_plan(x.shape, dy.shape, padding)
        parts, ends = min(plan.blocks, thread_count(plan.work)), thread_count(POINTS * O * C)
        shares, scratch, taps = self._vectors(
            x.dtype, parts * POINTS * out.size // 9, parts * plan.size, ends * 9 * lanes(x.dtype)
        )
        (tables,) = self._vectors(INDICES, parts * plan.indices, name="winograd")
        winograd.grad_weight(
            x.dtype,
            (
                inner_product.address(x.dtype), shares, dy, x, offsets, plan.shape, scratch, plan.size,
                tables,
            ),
            parts,
        )  # fmt: skip
        arguments = (shares, parts, out, taps, O, C, lanes(x.dtype))
        winograd.finish_grad_weight(x.dtype, arguments, ends)


def _saving(y_shape: Shape) -> float:
    """How many times fewer multiplications; at most 4, as tiles and vectors of images hang over the edges."""
    _, OH, OW, N = y_shape
    vector = lanes(FLOAT32)
    if vector > N:
        return 0  # an image would have to be read beyond the batch
    tiles, images = -(-OH // 4) * -(-OW // 4), -(-N // vector) * vector
    return 9 * OH * OW * N / (POINTS * tiles * images)


@lru_cache(maxsize=256)
def _plan(x_shape: Shape, y_shape: Shape, padding: Pair, pool: bool) -> Plan:
    """The plan of a convolution; with ``pool``, ``y_shape`` is that of the pooled output."""
    O, OH, OW, _ = y_shape
    seen = 2 if pool else 1  # results for each number of the output, down and across
    tall, short = _row_tiles(O)
    at_once = min(ROWS // TALL, tall + short)
    tiles = -(-OH * seen // 4), -(-OW * seen // 4)
    blocks = Blocks(tiles, PANELS, at_once * TALL, tall, short, at_once)
    return _divide(x_shape, y_shape, padding, blocks, x_shape[0] <= NARROW)


@lru_cache(maxsize=256)
def _gradient_plan(x_shape: Shape, dy_shape: Shape, padding: Pair) -> tuple[Plan, Array]:
    """The plan for the gradient of the weight, and where the patches of each channel begin."""
    C, (O, OH, OW, _) = x_shape[0], dy_shape
    blocks = Blocks((-(-OH // 4), -(-OW // 4)), VECTORS // ACROSS, O)
    plan = _divide(x_shape, dy_shape, padding, blocks, C + O <= 2 * NARROW or C + O >= MANY_CHANNELS)
    return plan, np.arange(C, dtype=np.intp) * int(plan.sizes.x_channel)


def _divide(x_shape: Shape, y_shape: Shape, padding: Pair, blocks: Blocks, large: bool) -> Plan:
    """The plan with these blocks, or with ``large`` ones of twice the size if there are enough of them."""
    C, H, W, N = x_shape
    O, OH, OW, _ = y_shape
    vector = lanes(FLOAT32)
    total, panels = prod(blocks.tiles) * -(-N // vector), blocks.panels
    if large and total >= ENOUGH_BLOCKS * 2 * panels * ACROSS:
        panels *= 2
    vectors, panel = panels * ACROSS, ACROSS * vector

    def strides(channels: int, in_panels: bool) -> tuple[int, int, int, int]:
        """All numbers of so many channels, and the steps between points, channels and panels."""
        point = channels * panels * panel + ROOM
        steps = (panel, channels * panel) if in_panels else (panels * panel, panel)
        return POINTS * point, point, *steps

    sizes = winograd.WinogradSizes(
        C, H, W, N, O, OH, OW, *blocks.tiles, *padding, blocks.tall, blocks.short, panels, blocks.at_once,
        DEPTH, vector, *strides(C, blocks.at_once > 0), *strides(blocks.rows, False),
    )  # fmt: skip
    size = 2 * -(-N // LINE) * LINE + sizes.x_size + sizes.y_size + vectors * (16 + vector) + 2 * vector
    size += 2 * vectors * 16 * vector  # for what a function is applied to
    tall_size, short_size = (-(-rows * C // vector) * vector for rows in (TALL, SHORT))
    return Plan(
        sizes, np.array(sizes, dtype=np.intp), tall_size, short_size,
        blocks.tall * tall_size + blocks.short * short_size, -(-size // LINE) * LINE, vectors * TABLES,
        -(-total // vectors), POINTS * O * C * prod(blocks.tiles) * N // MULTIPLICATIONS,
    )  # fmt: skip


@cache
def _in_order(lanes: int) -> Array:
    """Where the 16 results of a tile lie that follow each other."""
    return np.arange(16, dtype=np.intp) * lanes


@lru_cache(maxsize=256)
def _row_tiles(rows: int) -> tuple[int, int]:
    """How many tiles with TALL and with SHORT rows cover ``rows`` with the fewest rows beyond."""
    counts = ((max(0, -(-(rows - short * SHORT) // TALL)), short) for short in range(TALL // 2))
    return min(counts, key=lambda count: (count[0] * TALL + count[1] * SHORT, count[1]))
