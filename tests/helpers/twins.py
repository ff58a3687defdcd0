"""The same networks here and in PyTorch, and how the two are compared, in float64.

Strategies draw twins: (ours, PyTorch's) layers, in the order of PyTorch's arguments.
"""

import numpy as np
import pytest

import cnn
from backends import Backend
from cnn.training import schedules
from helpers.devices import get

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("hypothesis")
import torch
from hypothesis import HealthCheck, assume, given, register_random, settings
from hypothesis import strategies as st

__all__ = ["assume", "given", "st"]

nn, lr_scheduler = torch.nn, torch.optim.lr_scheduler
torch.set_num_threads(1)  # the tests run side by side


class PytorchsRandom:
    """PyTorch's numbers as Hypothesis wants them: the same weights whenever an example is run again."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


pytorchs_random = PytorchsRandom()
register_random(pytorchs_random)

TOLERANCE = 1e-10

# a quarter of the profile's examples, since there are many tests; ``kernels`` stays the same for all of them
at_random = settings(
    max_examples=settings.default.max_examples // 4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

seeds = st.integers(0, 2**32 - 1)
batch_sizes = st.one_of(st.integers(1, 9), st.integers(31, 34))


def on_images(layers, shapes=None):
    """((ours, PyTorch's), input shape): what ``layers`` draws for the shape of an image."""
    shapes = images() if shapes is None else shapes
    return shapes.flatmap(lambda shape: st.tuples(layers(shape), st.just(shape)))


def pairs(low, high):
    """(vertical, horizontal), each from ``low`` to ``high``."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


def images(channels=6, size=9):
    """The shape of an image, no larger than that."""
    return st.tuples(st.integers(1, channels), st.integers(1, size), st.integers(1, size))


class AnyConv2d(nn.Conv2d):
    """A convolution with other padding on each side, or a bias for each output position.

    PyTorch has no module for either.
    """

    def __init__(self, sides, mode, *arguments):
        super().__init__(*arguments)
        self.sides, self.mode = sides, {"zeros": "constant"}.get(mode, mode)

    def untie_bias(self, input_shape):
        """Give each output position a bias; -> the convolution."""
        output_shape = self(torch.zeros(1, *input_shape)).shape[1:]
        self.bias = nn.Parameter(torch.randn(output_shape))
        return self

    def forward(self, x):
        x = nn.functional.pad(x, self.sides, self.mode)
        if self.bias is None or self.bias.ndim == 1:
            return self._conv_forward(x, self.weight, self.bias)
        return self._conv_forward(x, self.weight, None) + self.bias


@st.composite
def convolutions(draw, shape, filters=6):
    """A convolution that fits an image of this shape, with up to so many filters a group."""
    channels, *size = shape
    groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
    filters = groups * draw(st.integers(1, filters))
    dilation, stride = draw(pairs(1, 3)), draw(pairs(1, 3))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate"]))
    most = [min(3, n - 1) if mode == "reflect" else 3 for n in size]
    above, below, left, right = (draw(st.integers(0, most[side // 2])) for side in range(4))
    even = draw(st.booleans())
    if even:
        below, right = above, left
    room = [(size[0] + above + below - 1) // dilation[0] + 1, (size[1] + left + right - 1) // dilation[1] + 1]
    kernel = tuple(draw(st.integers(1, min(5, n))) for n in room)
    padding = (above, left) if even else ((above, below), (left, right))
    untied = draw(st.booleans()) and {"untied_bias": True}
    bias = bool(untied) or draw(st.booleans())
    ours = cnn.Conv2D(
        filters, kernel, stride, padding, dilation, groups, bias, **(untied or {}), padding_mode=mode
    )
    if even and not untied:
        theirs = nn.Conv2d(channels, filters, kernel, stride, padding, dilation, groups, bias, mode)
    else:
        how = channels, filters, kernel, stride, 0, dilation, groups, bias
        theirs = AnyConv2d((left, right, above, below), mode, *how)
        if untied:
            theirs.untie_bias(shape)
    return ours, theirs


@st.composite
def transposed_convolutions(draw, shape):
    """A transposed convolution that leaves something of an image of this shape."""
    channels, *size = shape
    groups = draw(st.sampled_from([n for n in range(1, channels + 1) if channels % n == 0]))
    filters = groups * draw(st.integers(1, 4))
    kernel, stride, dilation = draw(pairs(1, 4)), draw(pairs(1, 3)), draw(pairs(1, 3))
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    whole = [
        (n - 1) * s + d * (k - 1) + e
        for n, s, d, k, e in zip(size, stride, dilation, kernel, extra, strict=True)
    ]
    padding = tuple(draw(st.integers(0, min(3, n // 2))) for n in whole)
    arguments = filters, kernel, stride, padding, extra, groups, draw(st.booleans()), dilation
    return cnn.ConvTranspose2D(*arguments), nn.ConvTranspose2d(channels, *arguments)


@st.composite
def upsamplings(draw, shape):
    """An image of this shape made larger or smaller."""
    factors = tuple(draw(st.sampled_from([1, 2, 3, 1.5, 2.7]) | st.floats(1 / n, 3)) for n in shape[1:])
    assume(all(int(n * factor) for n, factor in zip(shape[1:], factors, strict=True)))
    if draw(st.booleans()):
        return cnn.Upsample2D(factors), nn.Upsample(scale_factor=factors)
    corners = draw(st.booleans())
    theirs = nn.Upsample(scale_factor=factors, mode="bilinear", align_corners=corners)
    return cnn.Upsample2D(factors, "bilinear", corners), theirs


@st.composite
def same_convolutions(draw, shape):
    """A convolution that keeps the height and the width of an image of this shape."""
    channels, height, width = shape
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate"]))
    most = 1 + 2 * (min(height, width) - 1) if mode == "reflect" else 5
    kernel, dilation = draw(pairs(1, min(5, most))), draw(pairs(1, 1 if mode == "reflect" else 3))
    arguments = 3, kernel, 1, "same", dilation, 1, draw(st.booleans())
    return cnn.Conv2D(*arguments, padding_mode=mode), nn.Conv2d(channels, *arguments, mode)


@st.composite
def paddings(draw, shape):
    """A padding of an image of this shape."""
    _, height, width = shape
    ours, theirs, most = draw(
        st.sampled_from(
            [
                (cnn.ZeroPad2D, nn.ZeroPad2d, (3, 3)),
                (cnn.ReflectionPad2D, nn.ReflectionPad2d, (width - 1, height - 1)),
                (cnn.ReplicationPad2D, nn.ReplicationPad2d, (3, 3)),
            ]
        )
    )
    sides = tuple(draw(st.integers(0, min(3, most[side // 2]))) for side in range(4))
    return ours(sides), theirs(sides)


@st.composite
def max_pools(draw, shape):
    """A max pooling that fits an image of this shape."""
    kernel = tuple(draw(st.integers(1, min(4, n))) for n in shape[1:])
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    room = [n + 2 * p - 1 for n, p in zip(shape[1:], padding, strict=True)]
    dilation = tuple(
        draw(st.integers(1, max(1, min(3, n // max(1, k - 1))))) for n, k in zip(room, kernel, strict=True)
    )
    arguments, up = (kernel, draw(st.none() | pairs(1, 3)), padding, dilation), draw(st.booleans())
    theirs = nn.MaxPool2d(*arguments, ceil_mode=up)
    assume(torch.isfinite(theirs(torch.zeros(1, *shape))).all())  # no window sees padding alone
    return cnn.MaxPool2D(*arguments, ceil_mode=up), theirs


@st.composite
def average_pools(draw, shape):
    """An average pooling that fits an image of this shape."""
    kernel = tuple(draw(st.integers(1, min(4, n))) for n in shape[1:])
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    divisor = draw(st.none() | st.integers(1, 5))
    arguments = (
        kernel,
        draw(st.none() | pairs(1, 3)),
        padding,
        draw(st.booleans()),
        draw(st.booleans()),
        divisor,
    )
    return cnn.AvgPool2D(*arguments), nn.AvgPool2d(*arguments)


def adaptive_average_pools(shape):
    """An average pooling to a size."""
    return pairs(1, 7).map(lambda size: (cnn.AdaptiveAvgPool2D(size), nn.AdaptiveAvgPool2d(size)))


def global_pools(shape):
    """A pooling of whole channels."""
    average = cnn.GlobalAvgPool2D(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    largest = cnn.GlobalMaxPool2D(), nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return st.sampled_from([average, largest])


class Hardsigmoid(nn.Module):
    """PyTorch's Hardsigmoid with a gradient in float64, which PyTorch rounds to float32."""

    def forward(self, x):
        return nn.functional.relu6(x + 3) / 6


ACTIVATIONS = [  # (ours, PyTorch's), strategies for their arguments
    (cnn.ReLU, nn.ReLU),
    (cnn.Tanh, nn.Tanh),
    (cnn.Softmax, lambda: nn.Softmax(1)),
    (cnn.LogSoftmax, lambda: nn.LogSoftmax(1)),
    (cnn.LeakyReLU, nn.LeakyReLU, st.floats(0, 2)),
    (cnn.ELU, nn.ELU, st.floats(0, 3)),
    (cnn.SELU, nn.SELU),
    (cnn.GELU, lambda approximate: nn.GELU(approximate=approximate), st.sampled_from(["none", "tanh"])),
    (cnn.SiLU, nn.SiLU),
    (cnn.Sigmoid, nn.Sigmoid),
    (cnn.Softplus, nn.Softplus, st.floats(0.1, 3), st.floats(0, 30)),
    (cnn.HardSwish, nn.Hardswish),
    (cnn.HardSigmoid, Hardsigmoid),
    (cnn.PReLU, nn.PReLU, st.just(1), st.floats(0, 1)),
]


def activations(shape):
    """One that keeps the shape."""
    kinds = [*ACTIVATIONS, (cnn.PReLU, nn.PReLU, st.just(shape[0]), st.floats(0, 1))]
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.tuples(*kind[2:]).map(lambda arguments: (kind[0](*arguments), kind[1](*arguments)))
    )


def relu():
    """The twins of ReLU."""
    return cnn.ReLU(), nn.ReLU()


def output_shape(layers, shape):
    """The shape of one sample behind PyTorch's of the twins."""
    with torch.no_grad():
        return tuple(nn.Sequential(*(theirs for _, theirs in layers))(torch.zeros(1, *shape)).shape[1:])


@st.composite
def rectified_convolutions(draw, shape):
    """A convolution and ReLU, and often max pooling: what may be computed in one pass."""
    layers = [draw(convolutions(shape)), relu()]
    return [*layers, draw(max_pools(output_shape(layers, shape)))] if draw(st.booleans()) else layers


def image_blocks(shape):
    """One to three layers on an image of this shape."""
    pools = [max_pools(shape), average_pools(shape), adaptive_average_pools(shape)]
    kinds = convolutions, same_convolutions, transposed_convolutions, upsamplings, paddings, activations
    single = [*pools, *(kind(shape) for kind in kinds)]
    return rectified_convolutions(shape) | st.one_of(single).map(lambda layer: [layer])


@st.composite
def stacks(draw, classes=None):
    """(layers, input shape): blocks on an image, then dense layers, the last for ``classes`` where given."""
    shape = first = draw(images(channels=4))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        block = draw(image_blocks(shape))
        shape = output_shape(block, shape)
        if draw(st.booleans()):
            layers += block
        else:
            layers.append(nested(block))
    layers.append((cnn.Flatten(), nn.Flatten()))
    features = int(np.prod(shape))
    sizes = [*draw(st.lists(st.integers(1, 20), max_size=2)), *([classes] if classes else [])]
    for index, size in enumerate(sizes):
        bias = draw(st.booleans())
        layers.append((cnn.Dense(size, bias), nn.Linear(features, size, bias)))
        if not classes or index < len(sizes) - 1:
            layers.append(draw(activations((size,))))
        features = size
    return layers, first


def nested(layers):
    """The twins of a network inside another."""
    ours, theirs = zip(*layers, strict=True)
    return cnn.Sequential(*ours), nn.Sequential(*theirs)


def built(layers, shape, kernels, fuse=True):
    """(network, PyTorch's) of the twins in a row, with PyTorch's first weights in both."""
    ours, theirs = nested(layers)
    backend = kernels if isinstance(kernels, Backend) else get("cpu", kernels)
    ours.build(shape, backend=backend, dtype="float64", fuse=fuse)
    theirs = theirs.double()
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def batch_last(x):
    """(N, ...), of NumPy's or PyTorch's -> (..., N)."""
    array = x.detach().numpy() if isinstance(x, torch.Tensor) else x
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def close(what, ours, theirs, tolerance=TOLERANCE):
    """Fail unless the two agree; NaN agrees with NaN, infinity with infinity."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=what)


def same_step(network, peer, x, dy=None):
    """Compare outputs and all gradients for an input and its ``dy``, (N, ...); None: a random one."""
    leaf = torch.tensor(x, requires_grad=True)
    y = peer(leaf)
    dy = numbers(y.numel(), *y.shape) if dy is None else dy
    peer.zero_grad()
    y.backward(torch.tensor(dy))
    if not network.mixes_samples:
        close("inference", network.forward(batch_last(x)), batch_last(y))
    close("output", network.forward(batch_last(x), training=True), batch_last(y))
    close("gradient of the input", network.backward(batch_last(dy)), batch_last(leaf.grad))
    same_gradients(network, peer)


def same_gradients(network, peer):
    """Compare the parameters' gradients."""
    for (name, ours), theirs in zip(network.parameters.items(), peer.parameters(), strict=True):
        close(f"gradient of {name}", ours.grad, theirs.grad)


def same_weights(network, peer, tolerance=TOLERANCE):
    """Compare the parameters."""
    for (name, ours), theirs in zip(network.parameters.items(), peer.parameters(), strict=True):
        close(name, ours.value, theirs, tolerance)


def same_state(network, optimizer, peer, peers_optimizer, tolerance=TOLERANCE):
    """Compare what the optimizers remember of each parameter."""
    names = {"velocity": "momentum_buffer", "mean": "exp_avg", "square": "exp_avg_sq"}
    ours = optimizer.state_dict()
    for name, theirs in zip(network.parameters, peer.parameters(), strict=True):
        for state in optimizer.state_names:
            remembered = peers_optimizer.state[theirs][names[state]]
            close(f"{state} of {name}", ours[f"{state}/{name}"], remembered, tolerance)


def numbers(seed, *shape):
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


@st.composite
def optimizers(draw, fastest=0.1, epsilons=(1e-12, 1e-8, 1e-3)):
    """(name, settings) of an optimizer, the settings as ours are called."""
    kind = draw(st.sampled_from(["SGD", "Adam", "AdamW"]))
    drawn = {
        "learning_rate": draw(st.floats(1e-4, fastest)),
        "weight_decay": draw(st.sampled_from([0.0, 1e-4, 0.1])),
    }
    if kind == "SGD":
        drawn["momentum"] = draw(st.sampled_from([0.0, 0.5, 0.9, 0.999]))
        drawn["nesterov"] = drawn["momentum"] > 0 and draw(st.booleans())
    else:
        # the second 0 alone: a mean over a gradient that may be 0 but for rounding
        memory = st.sampled_from([0.5, 0.9, 0.99, 0.9999])
        betas = draw(st.just((0.0, 0.0)) | st.tuples(st.just(0.0) | memory, memory))
        drawn |= {"betas": betas, "epsilon": draw(st.sampled_from(epsilons))}
    return kind, drawn


def made_optimizers(kind, peer, settings):
    """(ours, PyTorch's on the parameters of ``peer``)."""
    theirs = {{"learning_rate": "lr", "epsilon": "eps"}.get(name, name): n for name, n in settings.items()}
    return getattr(cnn, kind)(**settings), getattr(torch.optim, kind)(peer.parameters(), **theirs)


def scheduler_of(schedule, optimizer, steps):
    """PyTorch's scheduler for one of ours over so many steps of ``optimizer``, at the middle of the first.

    Ours takes the learning rate in the middle of each step: PyTorch's is to be stepped twice a step.
    """
    halves = 2 * steps
    warm = round(schedule.warmup * halves)
    decay = _decay_of(schedule, optimizer, halves - warm)
    if warm:
        warm_up = lr_scheduler.LinearLR(optimizer, 1 / warm, 1.0, warm - 1)
        return lr_scheduler.SequentialLR(optimizer, [warm_up, decay], [warm - 1])
    optimizer.step()  # without gradients, and before the scheduler, as PyTorch wants it
    decay.step()
    return decay


def _decay_of(schedule, optimizer, halves):
    kind = type(schedule)
    if kind is schedules.Step:
        return lr_scheduler.StepLR(optimizer, round(schedule.every * halves), schedule.factor)
    if kind is schedules.Linear:
        return lr_scheduler.LinearLR(optimizer, 1.0, schedule.end, halves)
    if kind is schedules.Cosine:
        lowest = schedule.end * optimizer.param_groups[0]["lr"]
        return lr_scheduler.CosineAnnealingLR(optimizer, halves, lowest)
    return lr_scheduler.ConstantLR(optimizer, 1.0)
