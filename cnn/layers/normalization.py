"""Batch normalization."""

from math import prod

from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.support.arguments import flag, number
from cnn.support.errors import ArgumentError, ShapeError


class _BatchNorm(Layer):
    """What both batch normalizations share: everything but the input that they expect."""

    mixes_samples = True
    expected: str
    axes: int

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        name = type(self).__name__
        self.eps = number(f"{name}: eps", eps)
        if not self.eps:  # the variance may be 0
            raise ArgumentError(f"{name}: eps is 0, expected a number above 0 such as 1e-5")
        self.momentum = None if momentum is None else number(f"{name}: momentum", momentum)
        if self.momentum is not None and self.momentum > 1:
            raise ArgumentError(f"{name}: momentum is {momentum}, expected a number from 0 to 1, or None")
        self.affine = flag(f"{name}: affine", affine)
        self.track_running_stats = flag(f"{name}: track_running_stats", track_running_stats)

    @property
    def mixes_in_inference(self) -> bool:  # type: ignore[override]
        return not self.track_running_stats

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        if len(input_shape) != self.axes:
            raise ShapeError(f"layer {self.label}: the input is {input_shape}, expected {self.expected}")
        channels = input_shape[0]
        self._weight = self._bias = self._running_mean = self._running_variance = self._batches = None
        if self.affine:
            self._weight = self.parameter("weight", (channels,), "ones")
            self._bias = self.parameter("bias", (channels,), "zeros")
        if self.track_running_stats:
            self._running_mean = self.statistic("running_mean", (channels,), 0)
            self._running_variance = self.statistic("running_var", (channels,), 1)
            self._batches = self.statistic("num_batches_tracked", (), 0, "int64")
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        weight, bias = self._values("value")
        kernels = self.backend.kernels
        if not training and self.track_running_stats:
            kernels.normalize(x, self._running_mean, self._running_variance, weight, bias, self.eps, y)
            return y
        use = "training" if training else "inference"  # which must not change what backward reads
        mean, variance = (self.buffer(f"{name} in {use}", x.shape[:1]) for name in ("mean", "variance"))
        kernels.moments(x, mean, variance)
        kernels.normalize(x, mean, variance, weight, bias, self.eps, y)
        if training:
            self._x, self._mean, self._variance = x, mean, variance
            if self.track_running_stats:
                count = prod(x.shape[1:])
                unbiased = count / max(1, count - 1)
                running = self._running_mean, self._running_variance, self._batches
                kernels.track(*running, mean, variance, self.momentum, unbiased)
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        dx = self.input_gradient(dy) if input_grad else None
        moments = self._x, self._mean, self._variance
        (weight, _), grads = self._values("value"), self._values("grad")
        self.backend.kernels.normalize_grad(dy, *moments, weight, self.eps, *grads, dx)
        return dx

    def _values(self, name: str) -> tuple[Array | None, Array | None]:
        """The values, or the gradients, of weight and bias."""
        return getattr(self._weight, name, None), getattr(self._bias, name, None)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        itemsize = int(self.backend.xp.dtype(self.dtype).itemsize)
        return prod(self.output_shape) * itemsize * max(batch, 2 * trained)

    @property
    def multiply_adds(self) -> int:
        return prod(self.output_shape)


class BatchNorm2D(_BatchNorm):
    """Normalizes each channel over the batch and the image: (C, H, W) -> (C, H, W).

    ``y = (x - mean) / sqrt(variance + eps) * weight + bias``, as PyTorch's BatchNorm2d; the number of
    channels is inferred (Ioffe & Szegedy 2015). Training uses the mean and the biased variance of the batch,
    and inference uses their running averages, in which the variance is unbiased.

    Parameters
    ----------
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of the latest batch in the running averages; None: the average over all batches.
    affine : bool
        Whether there are a weight and a bias for each channel.
    track_running_stats : bool
        Whether there are running averages. Without them, inference uses the batch too.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    ShapeError
        When built on an input that is no image.

    A channel with one number in the batch has no variance: its output is the bias, where PyTorch raises an
    error, so that a training run does not end in a last batch of one sample.
    """

    axes, expected = 3, "an image (channels, height, width); put a Reshape before it"


class BatchNorm1D(_BatchNorm):
    """Normalizes each feature over the batch: (F,) -> (F,), as PyTorch's BatchNorm1d.

    The arguments are those of :class:`BatchNorm2D`. Raises ShapeError when built on an image.
    """

    axes, expected = 1, "a vector (features,); put a Flatten before it"
