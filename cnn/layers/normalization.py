"""Normalization over the batch, over samples and over groups of channels."""

from collections.abc import Sequence
from math import prod

from backends.graph import launch
from backends.kernels.functions import Function
from cnn.layers.fusion import Fused, Joinable
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.layers.synchronized import Peers, join_moments, join_sums, scaled
from cnn.support.arguments import flag, number, positive, size
from cnn.support.errors import ArgumentError, ShapeError


class _BatchNorm(Joinable):
    """What both batch normalizations share: everything but the input that they expect."""

    mixes_samples = True
    reads_output = False
    expected: str
    axes: int

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        scale: bool = True,
        sync: bool = False,
        trainable: bool = True,
    ) -> None:
        self.trainable = trainable
        name = type(self).__name__
        self.sync = flag(f"{name}: sync", sync)
        self.eps = positive(f"{name}: eps", eps)  # the variance may be 0
        self.momentum = None if momentum is None else number(f"{name}: momentum", momentum)
        if self.momentum is not None and self.momentum > 1:
            raise ArgumentError(f"{name}: momentum is {momentum}, expected a number from 0 to 1, or None")
        self.affine = flag(f"{name}: affine", affine)
        self.track_running_stats = flag(f"{name}: track_running_stats", track_running_stats)
        self.scale = flag(f"{name}: scale", scale)

    @property
    def synchronized(self) -> bool:  # type: ignore[override]
        return self.sync

    @property
    def mixes_in_inference(self) -> bool:  # type: ignore[override]
        return not self.track_running_stats

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        if len(input_shape) != self.axes:
            raise ShapeError(f"layer {self.label}: the input is {input_shape}, expected {self.expected}")
        channels = input_shape[0]
        self.has_moments = False  # whether the layer before has written those of the next training input
        self._weight = self._bias = self._running_mean = self._running_variance = self._batches = None
        if self.affine:
            if self.scale:
                self._weight = self.parameter("weight", (channels,), "ones")
            self._bias = self.parameter("bias", (channels,), "zeros")
        if self.track_running_stats:
            self._running_mean = self.statistic("running_mean", (channels,), 0)
            self._running_variance = self.statistic("running_var", (channels,), 1)
            self._batches = self.statistic("num_batches_tracked", (), 0, "int64")
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        self.normalize(x, y, training)
        return y

    def normalize(
        self, x: Array, y: Array, training: bool, formula: Function | None = None, addend: Array | None = None
    ) -> None:
        """Write the output to ``y``, or the function ``formula`` of its sum with ``addend``."""
        weight, bias = self._values("value")
        kernels = self.backend.kernels
        by_running = self.track_running_stats and (self.frozen or not training)
        if by_running:
            mean, variance = self._running_mean, self._running_variance
        else:
            mean, variance = self._moments(training)
            if not (training and self.has_moments):
                kernels.moments(x, mean, variance)
            if training and self._peers:
                join_moments(self, self._peers, x, mean, variance)
        given = x, mean, variance, weight, bias, self.eps, y, formula, addend
        tracks = training and self.track_running_stats and not by_running
        if tracks and not self.context.recomputation.is_running:
            count = prod(x.shape[1:-1]) * (self.context.link.samples if self._peers else x.shape[-1])
            unbiased = count / max(1, count - 1)
            running = self._running_mean, self._running_variance, self._batches
            kernels.normalize_and_track(*given, *running, self.momentum, unbiased)
        else:
            kernels.normalize(*given)
        if training:
            self._was_frozen, self.has_moments = by_running, False
            self._x, self._mean, self._variance = x, mean, variance

    def moments_before(self) -> tuple[Array, Array] | None:
        """Where the layer before writes the moments of the next training input; None: they are not needed."""
        if self.track_running_stats and self.frozen:
            return None
        return self._moments(training=True)

    def _moments(self, training: bool) -> tuple[Array, Array]:
        use = "training" if training else "inference"  # which must not change what backward reads
        channels = self.input_shape[:1]
        mean, variance = (self._sums(f"{name} in {use}", channels) for name in ("mean", "variance"))
        return mean, variance

    def _sums(self, name: str, shape: Shape) -> Array:
        """A buffer for numbers that are sums over the batch."""
        return self.buffer(name, shape, self.master_dtype)

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        return self.differentiate(dy, input_grad)

    def differentiate(
        self, dy: Array, input_grad: bool, formula: Function | None = None, addend: Array | None = None,
        addend_grad: Array | None = None,
    ) -> Array | None:  # fmt: skip
        """Write the gradients of the latest :meth:`normalize`, whose function and addend are given again."""
        dx = self.input_gradient(dy) if input_grad else None
        (weight, bias), grads = self._values("value"), self._values("grad")
        moments = self._mean, self._variance
        if not self._was_frozen and self._peers:
            return self._differentiate_together(dy, dx, formula, addend, addend_grad, self._peers)
        if not self._was_frozen:
            wanted = *grads, dx, formula, addend, addend_grad
            self.backend.kernels.normalize_grad(dy, self._x, *moments, weight, bias, self.eps, *wanted)
            return dx
        kernels = self.backend.kernels
        dy = self._before_activation(dy, formula, addend, addend_grad)
        if dx is not None:  # the running averages do not depend on the batch
            zeros = self._sums("zeros", dy.shape[:1])
            kernels.clear(zeros)
            kernels.normalize(dy, zeros, self._variance, weight, None, self.eps, dx)
        return dx

    def _before_activation(
        self, dy: Array, formula: Function | None, addend: Array | None, addend_grad: Array | None
    ) -> Array:
        """The gradient of what the function was applied to, and the gradient of the addend."""
        kernels = self.backend.kernels
        if formula is not None:
            value, grad = (self.buffer(name, dy.shape) for name in ("value", "value's gradient"))
            moments = self._mean, self._variance
            kernels.normalize(self._x, *moments, *self._values("value"), self.eps, value, None, addend)
            kernels.activate_grad(dy, value, formula, grad)
            dy = grad
        if addend_grad is not None:
            kernels.copy(dy, addend_grad)
        return dy

    def _differentiate_together(
        self, dy: Array, dx: Array | None, formula: Function | None, addend: Array | None,
        addend_grad: Array | None, peers: Peers,
    ) -> Array | None:  # fmt: skip
        """The gradients if the moments are those of several processes: the parameters', of this shard."""
        kernels, channels = self.backend.kernels, self.input_shape[:1]
        weight, bias = self._values("value")
        mean, variance = self._mean, self._variance
        dy = self._before_activation(dy, formula, addend, addend_grad)
        along, total = self._sums("gradient along", channels), self._sums("gradient in total", channels)
        kernels.normalize_grad(
            dy, self._x, mean, variance, weight, bias, self.eps, along, total, None, None, None, None
        )
        for grad, found in zip(self._values("grad"), (along, total), strict=True):
            if grad is not None:
                kernels.copy(found, grad)
        if dx is None:  # as in the other processes, which have the same layers
            return None
        join_sums(self, peers, self._x, along, total)
        zeros, correction = self._sums("zeros", channels), self.buffer("correction", dy.shape)
        kernels.clear(zeros)
        for factor in (along, total):
            launch(scaled, weight, variance, self.eps, factor, factor)
        kernels.normalize(self._x, mean, variance, along, total, self.eps, correction)
        kernels.normalize(dy, zeros, variance, weight, None, self.eps, dx)
        kernels.add(dx, correction, dx)
        return dx

    @property
    def _peers(self) -> Peers | None:
        """The processes that the moments are taken over; None: this one alone."""
        return self.context.link.peers if self.sync else None

    def fold(self, weight: Array, bias: Array | None, out_weight: Array, out_bias: Array) -> None:
        """Write the weight and bias of a layer with which it gives what this one makes of its output.

        This holds in inference, if there are running averages.
        """
        moments = self._running_mean, self._running_variance
        scale, shift = self._values("value")
        self.backend.kernels.fold(weight, bias, *moments, scale, shift, self.eps, out_weight, out_bias)

    def fuse(self, following: Sequence[Layer]) -> Layer | None:
        if following and following[0].is_own and following[0].formula is not None:
            return FusedNormalization(self, following[0])
        return None

    def forward_joined(
        self, x: Array, training: bool, addend: Array, formula: Function | None, addend_stays: bool
    ) -> Array:
        y = self.output(x, training)
        self.normalize(x, y, training, formula, addend)
        if training:
            self._y, self._addend = y, addend if addend_stays else None
        return y

    def backward_joined(
        self, dy: Array, input_grad: bool, addend_grad: Array, formula: Function | None
    ) -> Array | None:
        if formula is None or self._addend is not None:
            return self.differentiate(dy, input_grad, formula, self._addend, addend_grad)
        self.backend.kernels.activate_grad(dy, self._y, formula, addend_grad)  # the slope at y is that at x
        return self.differentiate(addend_grad, input_grad)

    def _values(self, name: str) -> tuple[Array | None, Array | None]:
        """The values, or the gradients, of weight and bias."""
        return getattr(self._weight, name, None), getattr(self._bias, name, None)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return prod(self.output_shape) * self.master_itemsize * max(batch, 2 * trained)

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
    scale : bool
        Whether there is a weight for each channel, if ``affine``. False: there is only a bias, as with
        Keras's ``scale=False``.
    sync : bool
        Whether training in several processes takes the mean and the variance of the whole batch, and not
        those of each shard, as PyTorch's SyncBatchNorm does. There must be as many processes as shards, and
        each layer exchanges two further messages in each step.
    trainable : bool
        Whether training changes the layer, its running averages too. If not, training uses these averages.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    ShapeError
        When built on an input that is no image.

    A channel with one number in the batch has no variance: its output is the bias, where PyTorch raises an
    error, so that a training run does not end in a last batch of one sample.
    """

    epilogue = "batch_norm"
    axes, expected = 3, "an image (channels, height, width); put a Reshape before it"


class BatchNorm1D(_BatchNorm):
    """Normalizes each feature over the batch: (F,) -> (F,), as PyTorch's BatchNorm1d.

    The arguments are those of :class:`BatchNorm2D`. Raises ShapeError when built on an image.
    """

    epilogue = "batch_norm"
    axes, expected = 1, "a vector (features,); put a Flatten before it"


class FusedNormalization(Fused):
    """Batch normalization with an activation. The result between them is not kept, but computed again."""

    reads_output = False

    def __init__(self, normalization: _BatchNorm, activation: Layer) -> None:
        super().__init__(normalization, activation)
        self.normalization = normalization

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.last.output(x, training)
        self.normalization.normalize(x, y, training, self.last.formula)
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        return self.normalization.differentiate(dy, input_grad, self.last.formula)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        more = 2 * prod(self.last.output_shape) * self.normalization.master_itemsize * trained
        return max(layer.workspace_bytes(batch, trained) for layer in self.layers) + more


class _GroupNormalization(Layer):
    """What normalizations of single samples share: a mean and a variance for each of ``groups`` groups."""

    groups: int
    eps: float
    reads_output = False

    def forward(self, x: Array, training: bool = False) -> Array:
        y = self.output(x, training)
        use = "training" if training else "inference"  # which must not change what backward reads
        mean, scale = (
            self.buffer(f"{name} in {use}", (self.groups, x.shape[-1]), self.master_dtype)
            for name in ("mean", "scale")
        )
        weight, bias = self._values("value")
        self.backend.kernels.normalize_groups(x, weight, bias, self.eps, mean, scale, y)
        if training:
            self._x, self._mean, self._scale = x, mean, scale
        return y

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        dx = self.input_gradient(dy) if input_grad else None
        weight, _ = self._values("value")
        self.backend.kernels.normalize_groups_grad(
            dy, self._x, weight, self._mean, self._scale, *self._values("grad"), dx
        )
        return dx

    def _values(self, name: str) -> tuple[Array | None, Array | None]:
        """The values, or the gradients, of weight and bias; None for what there is not."""
        weight, bias = (self.parameters.get(part) for part in ("weight", "bias"))
        return getattr(weight, name, None), getattr(bias, name, None)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return prod(self.output_shape) * self.master_itemsize * max(batch, 2 * trained)

    @property
    def multiply_adds(self) -> int:
        return prod(self.output_shape)


class LayerNorm(_GroupNormalization):
    """Normalizes each sample over all its numbers: any shape, which stays (Ba et al. 2016).

    ``y = (x - mean) / sqrt(variance + eps) * weight + bias`` with the mean and the biased variance of the
    sample, as PyTorch's LayerNorm over all axes of the sample; their shape is inferred. Weight and bias have
    the shape of the sample.

    Parameters
    ----------
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether there are a weight and a bias.
    bias : bool
        Whether there is a bias next to the weight.
    trainable : bool
        Whether training changes the layer.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    """

    groups = 1

    def __init__(
        self,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        trainable: bool = True,
    ) -> None:
        self.trainable = trainable
        self.eps = positive("LayerNorm: eps", eps)
        self.elementwise_affine = flag("LayerNorm: elementwise_affine", elementwise_affine)
        self.bias = flag("LayerNorm: bias", bias)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        if self.elementwise_affine:
            self.parameter("weight", input_shape, "ones")
            if self.bias:
                self.parameter("bias", input_shape, "zeros")
        return self.output_shape


class GroupNorm(_GroupNormalization):
    """Normalizes each sample over groups of channels: (C, ...) -> (C, ...) (Wu & He 2018).

    As PyTorch's GroupNorm: the weight and the bias have a number for each channel, and the number of channels
    is inferred. As many groups as channels make it an instance normalization.

    Parameters
    ----------
    groups : int
        The number of groups, which divides the number of channels.
    eps : float
        Added to the variance.
    affine : bool
        Whether there are a weight and a bias for each channel.
    trainable : bool
        Whether training changes the layer.

    Raises
    ------
    ArgumentError
        If an argument is out of range.
    ShapeError
        When built on an input whose channels cannot be cut into the groups.
    """

    def __init__(
        self, groups: int, eps: float = 1e-5, affine: bool = True, *, trainable: bool = True
    ) -> None:
        self.trainable = trainable
        self.groups = size("GroupNorm: groups", groups)
        self.eps = positive("GroupNorm: eps", eps)
        self.affine = flag("GroupNorm: affine", affine)

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        channels = input_shape[0]
        if channels % self.groups:
            raise ShapeError(
                f"layer {self.label}: an input of {channels} channels cannot be cut into {self.groups} "
                f"groups; choose groups that divide {channels}"
            )
        if self.affine:
            self.parameter("weight", (channels,), "ones")
            self.parameter("bias", (channels,), "zeros")
        return self.output_shape
