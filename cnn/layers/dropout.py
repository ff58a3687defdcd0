"""Dropout."""

from math import prod

from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.layers.window import require_image
from cnn.support.arguments import number


class Dropout(Layer):
    """Sets each number to zero with probability ``p`` in training, and scales the others by 1 / (1 - p).

    As PyTorch's Dropout (Srivastava et al. 2014); inference changes nothing. Which numbers are dropped
    follows from the network's seed, the layer, the number of updates, the sample's position in the batch and
    the number's position in the sample. So it is the same on every device and for every cut of the batch,
    the same for two forwards between updates, and needs no memory.

    Raises ArgumentError unless 0 <= p < 1.
    """

    whole_channels = False
    reads_input = reads_output = False

    def __init__(self, p: float = 0.5) -> None:
        self.p = number(f"{type(self).__name__}: p", p, below=1)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        self._stream = context.draws.stream()
        return super().build(input_shape, context)

    def forward(self, x: Array, training: bool = False) -> Array:
        if not training:
            return x
        y = self.output(x, training)
        self._drop(x, y)
        return y

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return 9 * prod(self.output_shape) * trained  # two words of random bits and a flag for each number

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self._drop(dy, dx)
        return dx

    def _drop(self, x: Array, out: Array) -> None:
        counters = self.context.draws.counters
        self.backend.kernels.dropout(x, self.p, self._stream, counters, out, self.whole_channels)


class Dropout2D(Dropout):
    """Sets whole channels of an image to zero with probability ``p`` in training, and scales the others.

    As PyTorch's Dropout2d (Tompson et al. 2015): neighbouring pixels of a channel say nearly the same, so
    dropping single ones has little effect. The choice is made as that of :class:`Dropout`, with the channel
    in place of the number's position.

    Raises ArgumentError unless 0 <= p < 1, and ShapeError when built on an input that is no image.
    """

    whole_channels = True

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        require_image(self, input_shape)
        return self.output_shape
