"""Convolution through ``scipy.signal`` or ``cupyx.scipy.signal``: the notebook's way, the reference.

Each call is one N-dimensional correlation: channels are contracted by "valid" mode, the batch is
carried along. Strides and dilations become gaps of zeros. Clear and slow; pooling is the portable one.
"""

from backends.kernels.portable import PortableKernels, border_shape, split, with_border
from backends.kernels.window import Pair, Window
from backends.memory import Array, temporaries


class SignalKernels(PortableKernels):
    """``correlate`` and ``convolve`` with the method named, as CuPy asks for beyond one dimension."""

    name = "signal"

    def conv2d(self, x: Array, weight: Array, out: Array, window: Window, groups: int = 1) -> None:
        """``out[o]`` = correlate(x, weight[o]), every stride-th of it."""
        x = self._bordered(x, window)
        for x_g, w_g, y_g in split(groups, x, weight, out):
            for w, y in zip(self._spread(w_g, window.dilation), y_g, strict=True):
                # (C, H, W, N) * (C, KH, KW, 1) -> (1, H', W', N)
                full = self.device.signal.correlate(x_g, w[..., None], mode="valid", method="direct")
                y[...] = full[0, :: window.stride[0], :: window.stride[1]][: y.shape[0], : y.shape[1]]

    def conv2d_grad_weight(self, x: Array, dy: Array, out: Array, window: Window, groups: int = 1) -> None:
        """``out[o]`` = correlate(x, dy[o]), every dilation-th of it; the batch is contracted too."""
        x = self._bordered(x, window)
        _, OH, OW, _ = dy.shape
        height = window.stride[0] * (OH - 1) + window.extent[0]  # what the windows reach of x
        width = window.stride[1] * (OW - 1) + window.extent[1]
        spread = self._spread(dy.transpose(0, 3, 1, 2), window.stride).transpose(0, 2, 3, 1)
        for x_g, dy_g, dw_g in split(groups, x[:, :height, :width], spread, out):
            for dy_o, dw in zip(dy_g, dw_g, strict=True):
                # (C, H, W, N) * (1, OH', OW', N) -> (C, KH', KW', 1)
                full = self.device.signal.correlate(x_g, dy_o[None], mode="valid", method="direct")
                dw[...] = full[:, :: window.dilation[0], :: window.dilation[1], 0]

    def conv2d_grad_input(
        self, dy: Array, weight: Array, out: Array, window: Window, groups: int = 1
    ) -> None:
        """``out[c]`` = convolve(dy, weight[:, c]) with gaps for the stride, cropped to the input."""
        O, OH, OW, N = dy.shape
        _, H, W, _ = out.shape
        top, left = window.extent[0] - 1, window.extent[1] - 1
        height, width = window.padded(H, W)
        # zeros around dy, so that "valid" gives every position of the padded input
        around = self.device.xp.zeros((O, height + top, width + left, N), dtype=dy.dtype)
        inside = around[:, top:, left:]
        inside[:, : window.stride[0] * OH : window.stride[0], : window.stride[1] * OW : window.stride[1]] = dy
        for dy_g, w_g, dx_g in split(groups, around, weight, out):
            spread = self._spread(w_g, window.dilation)
            for channel, dx in enumerate(dx_g):
                # convolve flips every axis; the output channels are to meet their own
                w = spread[::-1, channel, :, :, None].copy()
                # (O, H'+KH'-1, W'+KW'-1, N) * (O, KH', KW', 1) -> (1, H', W', N)
                full = self.device.signal.convolve(dy_g, w, mode="valid", method="direct")
                rows = slice(window.padding[0], window.padding[0] + H)
                dx[...] = full[0, rows, window.padding[1] : window.padding[1] + W]

    def _bordered(self, x: Array, window: Window) -> Array:
        (border,) = temporaries(self.device, (border_shape(x, window), x.dtype))
        return with_border(x, window, 0, border)

    def _spread(self, array: Array, gap: Pair) -> Array:
        """The last two axes with ``gap - 1`` zeros between neighbours."""
        if gap == (1, 1):
            return self.device.xp.ascontiguousarray(array)
        *front, H, W = array.shape
        shape = (*front, gap[0] * (H - 1) + 1, gap[1] * (W - 1) + 1)
        spread = self.device.xp.zeros(shape, dtype=array.dtype)
        spread[..., :: gap[0], :: gap[1]] = array
        return spread
