"""Dropout."""

from math import prod

from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.support.arguments import number


class Dropout(Layer):
    """Sets each number to zero with probability ``p`` in training, and scales the others by 1 / (1 - p).

    As PyTorch's Dropout (Srivastava et al. 2014); inference changes nothing. Which numbers are dropped
    follows from the network's seed, the layer, the number of updates, the sample's position in the batch and
    the number's position in the sample. So it is the same on every device and for every cut of the batch,
    the same for two forwards between updates, and needs no memory.

    Raises ArgumentError unless 0 <= p < 1.
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("Dropout: p", p, below=1)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        self._stream = context.draws.stream()
        return super().build(input_shape, context)

    def forward(self, x: Array, training: bool = False) -> Array:
        if not training:
            return x
        y = self.buffer("y", x.shape)
        self.backend.kernels.dropout(x, self.p, self._stream, self.context.draws.counters, y)
        return y

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return 9 * prod(self.output_shape) * trained  # two words of random bits and a flag for each number

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        self.backend.kernels.dropout(dy, self.p, self._stream, self.context.draws.counters, dx)
        return dx
