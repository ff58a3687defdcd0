"""What layers share whose rows and columns are weighted sums of those of the input."""

from backends.kernels.sampling import Sampling
from cnn.layers.layer import Array, Layer, Shape
from cnn.support.arguments import countable
from cnn.support.errors import ShapeError

LONGEST = 2**20  # rows or columns of an image whose sampling is written down one by one


def require_samplable(layer: Layer, shape: Shape) -> Shape:
    """``shape`` (C, H, W) if an image of it can be resampled to, else ShapeError."""
    if max(shape[1:]) > LONGEST:
        raise ShapeError(
            f"layer {layer.label}: the output is {shape}, expected at most {LONGEST:,} rows and columns"
        )
    return countable(f"layer {layer.label}: the output", shape)


class Resampled(Layer):
    """A layer that resamples each channel: ``build`` sets ``rows`` and ``columns``."""

    rows: Sampling
    columns: Sampling
    reads_input = reads_output = False

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.resample(x, y)
        return y

    def resample(self, x: Array, y: Array) -> None:
        """Write the output for ``x`` to ``y``."""
        self.backend.kernels.resample(x, self._as_image(y), self.rows, self.columns)

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        if not input_grad:
            return None
        dx = self.input_gradient(dy)
        rows, columns = self.rows.transposed, self.columns.transposed
        self.backend.kernels.resample(self._as_image(dy), dx, rows, columns)
        return dx

    def _as_image(self, y: Array) -> Array:
        """The output, or its gradient, with a height and a width."""
        return y.reshape(len(y), len(self.rows), len(self.columns), y.shape[-1])

    def workspace_bytes(self, batch: int, trained: int) -> int:
        forward = _numbers_between(self.rows, self.columns) * batch
        backward = _numbers_between(self.rows.transposed, self.columns.transposed) * trained
        return self.input_shape[0] * max(forward, backward) * self.master_itemsize


def _numbers_between(rows: Sampling, columns: Sampling) -> int:
    """Numbers of one channel that the portable kernel keeps between rows and columns."""
    height, width = len(rows), columns.size
    return height * width + max(rows.longest * width, height * columns.longest)
