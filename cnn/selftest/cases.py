"""The table of layers: each by itself with its options, and small networks in which they follow each other.

A row is all that a new layer needs: the tests and ``cnn selftest`` derive their checks from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cnn.layers import (
    ELU,
    GELU,
    SELU,
    Activation,
    AdaptiveAvgPool2D,
    AvgPool2D,
    BatchNorm1D,
    BatchNorm2D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Dropout,
    Dropout2D,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Layer,
    LayerNorm,
    LeakyReLU,
    LogSoftmax,
    MaxPool2D,
    PadChannels,
    Parallel,
    PReLU,
    ReflectionPad2D,
    ReLU,
    ReplicationPad2D,
    Rescale,
    Reshape,
    Residual,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Upsample2D,
    ZeroPad2D,
)
from cnn.network import Network


@dataclass(frozen=True)
class Case:
    """A layer, and the shapes of one sample before and after it."""

    name: str
    make: Callable[[], Layer]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    plain: bool = True  # whether its constructor's arguments are plain data


@dataclass(frozen=True)
class Example:
    """A network and the shape of one sample that goes into it."""

    name: str
    layers: Callable[[], list[Layer]]
    input_shape: tuple[int, ...]

    def network(self) -> Network:
        """A new one, not yet built."""
        return Network(*self.layers())


def _cube(x: Any) -> Any:
    return x * x * x


def _cube_prime(x: Any) -> Any:
    return 3 * x * x


LAYERS = [
    Case("convolution", lambda: Conv2D(4, 3), (2, 6, 7), (4, 4, 5)),
    Case("convolution 1x1", lambda: Conv2D(3, 1), (2, 4, 4), (3, 4, 4)),
    Case("convolution of the whole image", lambda: Conv2D(3, (4, 5)), (2, 4, 5), (3, 1, 1)),
    Case("convolution, no bias", lambda: Conv2D(3, (2, 3), bias=False), (2, 5, 5), (3, 4, 3)),
    Case("convolution, untied bias", lambda: Conv2D(3, 3, untied_bias=True), (1, 5, 6), (3, 3, 4)),
    Case("convolution, padded", lambda: Conv2D(3, 3, padding=(2, 1)), (2, 5, 4), (3, 7, 4)),
    Case("convolution, strided", lambda: Conv2D(3, 3, stride=(2, 3)), (2, 8, 9), (3, 3, 3)),
    Case("convolution, strided, rows left over", lambda: Conv2D(3, 2, stride=3), (2, 7, 6), (3, 2, 2)),
    Case("convolution, dilated", lambda: Conv2D(3, (3, 2), dilation=(2, 3)), (2, 7, 8), (3, 3, 5)),
    Case("convolution, in groups", lambda: Conv2D(6, 3, groups=2), (4, 5, 5), (6, 3, 3)),
    Case("convolution, depthwise", lambda: Conv2D(3, 3, padding=1, groups=3), (3, 5, 5), (3, 5, 5)),
    Case(
        "convolution, depthwise, strided, two filters a channel",
        lambda: Conv2D(6, 3, 2, ((1, 2), (0, 1)), groups=3),
        (3, 5, 6),
        (6, 3, 3),
    ),
    Case(
        "convolution, everything at once",
        lambda: Conv2D(4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        (4, 7, 6),
        (4, 4, 8),
    ),
    Case(
        "convolution, same size",
        lambda: Conv2D(3, (2, 3), padding="same", dilation=(3, 1)),
        (2, 5, 4),
        (3, 5, 4),
    ),
    Case("convolution, uneven padding", lambda: Conv2D(3, 3, padding=((2, 0), (0, 1))), (2, 5, 4), (3, 5, 3)),
    Case(
        "convolution, uneven padding and strides",
        lambda: Conv2D(4, (3, 2), (2, 3), ((0, 2), (1, 3)), groups=2),
        (4, 7, 6),
        (4, 4, 3),
    ),
    Case(
        "convolution, reflected padding",
        lambda: Conv2D(3, 3, padding=2, padding_mode="reflect"),
        (2, 4, 5),
        (3, 6, 7),
    ),
    Case(
        "convolution, replicated padding",
        lambda: Conv2D(3, 2, 2, ((2, 1), (0, 3)), padding_mode="replicate"),
        (2, 3, 4),
        (3, 3, 3),
    ),
    Case("transposed convolution", lambda: ConvTranspose2D(3, 3), (2, 3, 4), (3, 5, 6)),
    Case(
        "transposed convolution, strided, no bias",
        lambda: ConvTranspose2D(3, 3, 2, 1, output_padding=1, bias=False),
        (2, 3, 4),
        (3, 6, 8),
    ),
    Case(
        "transposed convolution, everything at once",
        lambda: ConvTranspose2D(4, (3, 2), (2, 1), (0, 2), (1, 2), 2, dilation=(1, 3)),
        (6, 3, 4),
        (4, 8, 5),
    ),
    Case("enlarging, nearest", lambda: Upsample2D(2), (2, 3, 4), (2, 6, 8)),
    Case("enlarging, nearest, by fractions", lambda: Upsample2D((1.5, 0.7)), (2, 3, 4), (2, 4, 2)),
    Case("enlarging, bilinear", lambda: Upsample2D((2, 3), "bilinear"), (2, 3, 4), (2, 6, 12)),
    Case("enlarging, bilinear, corners", lambda: Upsample2D(2.5, "bilinear", True), (2, 3, 1), (2, 7, 2)),
    Case("zero padding", lambda: ZeroPad2D((1, 2, 0, 3)), (2, 3, 4), (2, 6, 7)),
    Case("reflected padding", lambda: ReflectionPad2D((3, 1, 2, 0)), (2, 3, 4), (2, 5, 8)),
    Case("replicated padding", lambda: ReplicationPad2D(2), (2, 3, 1), (2, 7, 5)),
    Case("max pooling", lambda: MaxPool2D(2), (3, 6, 4), (3, 3, 2)),
    Case("max pooling, windows overlap", lambda: MaxPool2D(3, stride=1), (2, 5, 6), (2, 3, 4)),
    Case("max pooling, rows left over", lambda: MaxPool2D(2), (2, 5, 7), (2, 2, 3)),
    Case("max pooling, padded", lambda: MaxPool2D((3, 2), stride=2, padding=1), (2, 6, 5), (2, 3, 3)),
    Case("max pooling, dilated", lambda: MaxPool2D(2, stride=1, dilation=2), (2, 5, 6), (2, 3, 4)),
    Case("max pooling, 17x17 taps", lambda: MaxPool2D(17, stride=1), (1, 18, 18), (1, 2, 2)),
    Case("max pooling, rounded up", lambda: MaxPool2D(2, ceil_mode=True), (2, 5, 7), (2, 3, 4)),
    Case(
        "max pooling, rounded up with all options",
        lambda: MaxPool2D((3, 2), (2, 3), (1, 0), (1, 2), ceil_mode=True),
        (2, 6, 7),
        (2, 4, 3),
    ),
    Case("max pooling of whole channels", GlobalMaxPool2D, (3, 4, 5), (3,)),
    Case("average pooling", lambda: AvgPool2D(2), (3, 6, 4), (3, 3, 2)),
    Case("average pooling, overlap, padded", lambda: AvgPool2D(3, 2, padding=1), (2, 6, 5), (2, 3, 3)),
    Case(
        "average pooling, rounded up, padding left out",
        lambda: AvgPool2D((3, 2), 2, (1, 0), ceil_mode=True, count_include_pad=False),
        (2, 6, 5),
        (2, 4, 3),
    ),
    Case(
        "average pooling, rounded up, another divisor",
        lambda: AvgPool2D((2, 3), (2, 3), (0, 1), ceil_mode=True, divisor_override=5),
        (2, 5, 6),
        (2, 3, 3),
    ),
    Case("average pooling to a size", lambda: AdaptiveAvgPool2D((3, 2)), (2, 5, 4), (2, 3, 2)),
    Case("average pooling of whole channels", GlobalAvgPool2D, (3, 4, 5), (3,)),
    Case("dense", lambda: Dense(5), (7,), (5,)),
    Case("dense, no bias", lambda: Dense(5, bias=False), (7,), (5,)),
    Case("relu", ReLU, (3, 4, 5), (3, 4, 5)),
    Case("tanh", Tanh, (3, 4, 5), (3, 4, 5)),
    Case("leaky relu", lambda: LeakyReLU(0.2), (3, 4, 5), (3, 4, 5)),
    Case("prelu", PReLU, (3, 4, 5), (3, 4, 5)),
    Case("prelu, a weight for each channel", lambda: PReLU(3, 0.5), (3, 4, 5), (3, 4, 5)),
    Case("elu", lambda: ELU(1.5), (3, 4, 5), (3, 4, 5)),
    Case("selu", SELU, (3, 4, 5), (3, 4, 5)),
    Case("gelu", GELU, (3, 4, 5), (3, 4, 5)),
    Case("gelu by tanh", lambda: GELU("tanh"), (3, 4, 5), (3, 4, 5)),
    Case("silu", SiLU, (3, 4, 5), (3, 4, 5)),
    Case("sigmoid", Sigmoid, (3, 4, 5), (3, 4, 5)),
    Case("softplus", lambda: Softplus(2.0, 1.5), (3, 4, 5), (3, 4, 5)),
    Case("hard sigmoid", HardSigmoid, (3, 4, 5), (3, 4, 5)),
    Case("hard swish", HardSwish, (3, 4, 5), (3, 4, 5)),
    Case("log softmax", LogSoftmax, (6,), (6,)),
    Case("log softmax over channels", LogSoftmax, (3, 2, 2), (3, 2, 2)),
    Case("softmax", Softmax, (6,), (6,)),
    Case("softmax over channels", Softmax, (3, 2, 2), (3, 2, 2)),
    Case("a function of one's own", lambda: Activation(_cube, _cube_prime), (3, 4), (3, 4), plain=False),
    Case("flatten", Flatten, (2, 3, 4), (24,)),
    Case("reshape", lambda: Reshape((4, 6)), (2, 3, 4), (4, 6)),
    Case(
        "a network in a network",
        lambda: Network(Conv2D(2, 3), ReLU(), Flatten(), Dense(3)),
        (1, 5, 5),
        (3,),
    ),
    Case("batch normalization of images", BatchNorm2D, (3, 4, 5), (3, 4, 5)),
    Case("batch normalization of vectors", BatchNorm1D, (6,), (6,)),
    Case("batch normalization, no parameters", lambda: BatchNorm2D(1e-3, affine=False), (2, 3, 3), (2, 3, 3)),
    Case("batch normalization, bias alone", lambda: BatchNorm2D(scale=False), (2, 3, 3), (2, 3, 3)),
    Case("batch normalization, average of all", lambda: BatchNorm1D(momentum=None), (6,), (6,)),
    Case(
        "batch normalization, no averages",
        lambda: BatchNorm2D(track_running_stats=False),
        (2, 3, 3),
        (2, 3, 3),
    ),
    Case("constant factor", lambda: Rescale(0.3), (2, 3, 4), (2, 3, 4)),
    Case("channels of zeros", lambda: PadChannels(7), (4, 3, 5), (7, 3, 5)),
    Case("as many channels as before", lambda: PadChannels(4), (4, 3), (4, 3)),
    Case("dropout", lambda: Dropout(0.4), (3, 4, 5), (3, 4, 5)),
    Case("dropout of channels", lambda: Dropout2D(0.4), (6, 4, 5), (6, 4, 5)),
    Case("layer normalization", LayerNorm, (3, 4, 5), (3, 4, 5)),
    Case("layer normalization of vectors, no bias", lambda: LayerNorm(1e-3, bias=False), (6,), (6,)),
    Case("layer normalization, no parameters", lambda: LayerNorm(0.1, False), (2, 3), (2, 3)),
    Case("group normalization", lambda: GroupNorm(2), (4, 3, 5), (4, 3, 5)),
    Case("group normalization, no parameters", lambda: GroupNorm(3, 0.1, False), (12,), (12,)),
    Case("residual", lambda: Residual(Conv2D(2, 3, padding=1), Tanh()), (2, 4, 5), (2, 4, 5)),
    Case(
        "residual with a shortcut",
        lambda: Residual(Conv2D(4, 3, stride=2, padding=1), shortcut=Conv2D(4, 1, stride=2)),
        (2, 6, 5),
        (4, 3, 3),
    ),
    Case("branches, added", lambda: Parallel(Dense(4), Network(Dense(5), Tanh(), Dense(4))), (6,), (4,)),
    Case(
        "branches, concatenated",
        lambda: Parallel(Conv2D(2, 1), Network(), Conv2D(3, 3, padding=1), join="concatenate"),
        (2, 4, 3),
        (7, 4, 3),
    ),
]


NETWORKS = [
    Example("convolution", lambda: [Conv2D(4, 3), Tanh(), Flatten(), Dense(3)], (2, 6, 7)),
    Example("convolution 1x1 without bias", lambda: [Conv2D(5, 1, bias=False), Conv2D(2, 2)], (3, 4, 5)),
    Example("convolution, padded", lambda: [Conv2D(3, 3, padding=(2, 1)), Conv2D(2, 3)], (2, 5, 4)),
    Example("convolution, strided", lambda: [Conv2D(3, 3, stride=(2, 3)), Conv2D(2, 2)], (2, 9, 14)),
    Example("convolution, dilated", lambda: [Conv2D(3, (3, 2), dilation=(2, 3)), Conv2D(2, 2)], (2, 7, 8)),
    Example("convolution in groups", lambda: [Conv2D(6, 3, groups=2), Conv2D(6, 2, groups=6)], (4, 5, 5)),
    Example(
        "convolution, depthwise, ReLU, max pooling",
        lambda: [
            Conv2D(6, 3, 2, 1, groups=3),
            ReLU(),
            Conv2D(6, 3, padding=1, groups=6),
            ReLU(),
            MaxPool2D(2),
        ],
        (3, 9, 8),
    ),
    Example(
        "convolution with all options",
        lambda: [Conv2D(4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2), ReLU()],
        (4, 7, 6),
    ),
    Example("convolution, ReLU", lambda: [Conv2D(3, 3, padding=1), ReLU(), Conv2D(2, 3), ReLU()], (2, 6, 6)),
    Example(
        "convolution, ReLU, max pooling",
        lambda: [Conv2D(4, 3, padding=1), ReLU(), MaxPool2D(2), Conv2D(5, 3), ReLU(), MaxPool2D(2)],
        (2, 10, 12),
    ),
    Example(
        "convolution with a bias for each place, ReLU, overlapping max pooling",
        lambda: [Conv2D(3, 3, untied_bias=True), ReLU(), MaxPool2D(2, stride=1), Flatten(), Dense(4)],
        (1, 8, 7),
    ),
    Example(
        "convolution without bias, ReLU, max pooling with all options",
        lambda: [Conv2D(3, 3, bias=False), ReLU(), MaxPool2D((3, 2), stride=2, padding=1, dilation=(1, 2))],
        (2, 9, 8),
    ),
    Example("max pooling, padded", lambda: [MaxPool2D((3, 2), stride=2, padding=1), Tanh()], (2, 6, 5)),
    Example("max pooling, dilated, overlapping", lambda: [MaxPool2D(2, stride=1, dilation=2)], (2, 5, 6)),
    Example("max pooling over more taps than a byte counts", lambda: [MaxPool2D(17, stride=1)], (1, 18, 18)),
    Example("average pooling", lambda: [AvgPool2D(2), AvgPool2D((2, 1))], (3, 8, 4)),
    Example("average pooling, padded, overlapping", lambda: [AvgPool2D(3, 2, padding=1), Tanh()], (2, 6, 5)),
    Example(
        "convolution, ReLU, max pooling, rounded up",
        lambda: [
            Conv2D(3, 2),
            ReLU(),
            MaxPool2D(2, ceil_mode=True),
            Conv2D(2, 2),
            GlobalAvgPool2D(),
            Dense(3),
        ],
        (2, 8, 6),
    ),
    Example(
        "padding of every kind",
        lambda: [
            ZeroPad2D((1, 0, 2, 1)),
            Conv2D(3, 2, padding="same"),
            ReLU(),
            ReflectionPad2D(1),
            Conv2D(2, 3, 2, ((2, 0), (1, 2)), padding_mode="reflect"),
            ReLU(),
            ReplicationPad2D((0, 1, 2, 3)),
            Conv2D(2, 3, padding=1, padding_mode="replicate"),
            ReflectionPad2D((2, 0, 1, 0)),
            ReplicationPad2D(1),
            ZeroPad2D(1),
        ],
        (2, 4, 5),
    ),
    Example(
        "made smaller and larger again",
        lambda: [
            Conv2D(4, 3, 2, 1),
            ReLU(),
            ConvTranspose2D(4, 3, 2, 1, 1, groups=2),
            Tanh(),
            ConvTranspose2D(3, (2, 1), bias=False, dilation=2),
            Upsample2D(2),
            MaxPool2D(2, 1),
            Upsample2D((1, 1.5), "bilinear"),
            Upsample2D(2, "bilinear", align_corners=True),
        ],
        (2, 4, 6),
    ),
    Example(
        "pooling with all options",
        lambda: [
            AvgPool2D((3, 2), 2, (1, 0), ceil_mode=True, count_include_pad=False),
            Tanh(),
            AdaptiveAvgPool2D((5, 4)),
            AvgPool2D(2, 1, divisor_override=3),
            AdaptiveAvgPool2D(3),
            GlobalMaxPool2D(),
        ],
        (2, 9, 8),
    ),
    Example("dense, ReLU", lambda: [Dense(6), ReLU(), Dense(5, bias=False), ReLU(), Dense(3)], (7,)),
    Example(
        "functions of each number",
        lambda: [
            Conv2D(4, 3),
            GELU(),
            Conv2D(4, 3, padding=1),
            LeakyReLU(),
            PReLU(4),
            GELU("tanh"),
            SiLU(),
            Flatten(),
            Dense(9),
            ELU(),
            Sigmoid(),
            Dense(7),
            Softplus(),
            SELU(),
            HardSwish(),
            PReLU(1, 0.5),
            HardSigmoid(),
            LeakyReLU(0.2),
            ELU(1.5),
            Softplus(2.0, 1.0),
            LogSoftmax(),
        ],
        (2, 6, 5),
    ),
    Example("softmax", lambda: [Dense(5), Softmax()], (6,)),
    Example("softmax over channels", lambda: [Conv2D(3, 2), Softmax()], (2, 3, 3)),
    Example("a function of one's own", lambda: [Dense(4), Activation(_cube, _cube_prime)], (3,)),
    Example("reshape", lambda: [Reshape((2, 3, 4)), Conv2D(2, 2), Reshape((6, 2)), Flatten()], (24,)),
    Example(
        "a network in a network",
        lambda: [Network(Conv2D(2, 3), ReLU()), Network(Flatten(), Dense(3), ReLU()), Dense(2)],
        (1, 5, 5),
    ),
    Example(
        "normalized convolution, residual",
        lambda: [
            Conv2D(3, 3, padding=1, bias=False),
            BatchNorm2D(0.1, 0.3),
            ReLU(),
            Residual(Conv2D(3, 3, padding=1, bias=False), BatchNorm2D(affine=False), ReLU()),
            Residual(Conv2D(4, 1), shortcut=Conv2D(4, 1)),
            Tanh(),
            BatchNorm2D(track_running_stats=False),
            Tanh(),
            Flatten(),
            BatchNorm1D(1e-3, None, False, False),
        ],
        (2, 5, 4),
    ),
    Example(
        "normalized samples, dropped channels",
        lambda: [
            Conv2D(6, 3),
            GroupNorm(3),
            ReLU(),
            Dropout2D(),
            LayerNorm(),
            Dropout2D(0.2),
            GroupNorm(2, 0.1, affine=False),
            Tanh(),
            Flatten(),
            LayerNorm(0.1, bias=False),
            Dense(5),
            LayerNorm(0.2, elementwise_affine=False),
        ],
        (2, 6, 5),
    ),
    Example(
        "normalization and ReLU",
        lambda: [
            Conv2D(4, 3, padding=1, bias=False),
            BatchNorm2D(0.01, scale=False, sync=True),
            ReLU(),
            Conv2D(3, 2, bias=False),
            BatchNorm2D(affine=False),
            ReLU(),
            MaxPool2D(2),
            BatchNorm2D(track_running_stats=False),
            ReLU(),
            Flatten(),
            Dense(6, bias=False),
            BatchNorm1D(scale=False, sync=True),
            ReLU(),
            Dense(3),
        ],
        (2, 6, 5),
    ),
    Example(
        "dropout between branches",
        lambda: [
            Dropout(0.3),
            Parallel(Dense(4), Network(Dense(3), Tanh(), BatchNorm1D()), join="concatenate"),
            Parallel(Dense(2), Dense(2)),
            Dropout(),
            Dense(3),
        ],
        (6,),
    ),
    Example(
        "more channels on the shortcut",
        lambda: [
            Residual(Conv2D(5, 3, stride=2, padding=1), shortcut=Network(MaxPool2D(1, 2), PadChannels(5))),
            Rescale(0.5),
            PadChannels(6),
            Rescale(2),
            Flatten(),
            Dense(3),
        ],
        (2, 5, 4),
    ),
]
