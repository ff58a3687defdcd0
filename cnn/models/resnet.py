"""Residual networks for small colour pictures."""

from cnn.layers import (
    BatchNorm2D,
    Conv2D,
    Dense,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    PadChannels,
    ReLU,
    Rescale,
    Residual,
    Sequential,
)
from cnn.network import Network


def resnet(blocks: int, classes: int = 10) -> Network:
    """The residual network of 6 * ``blocks`` + 2 layers for CIFAR-10 (He et al. 2016, section 4.2).

    Three stages with 16, 32 and 64 channels; shortcuts have no parameters (option A).
    """
    layers: list[Layer] = [*_convolution(16), ReLU()]
    before = 16
    for channels in (16, 32, 64):  # (3, 32, 32) -> (16, 32, 32) -> (32, 16, 16) -> (64, 8, 8)
        for block in range(blocks):
            layers += _block(channels, stride=2 if block == 0 and channels != before else 1)
        before = channels
    return Network(*layers, GlobalAvgPool2D(), Dense(classes))


def _block(channels: int, stride: int) -> list[Layer]:
    """Two convolutions with a shortcut around them."""
    shortcut = Sequential(MaxPool2D(1, stride=stride), PadChannels(channels)) if stride > 1 else None
    inside = [*_convolution(channels, stride), ReLU(), *_convolution(channels)]
    return [Residual(*inside, shortcut=shortcut), ReLU()]


def _convolution(channels: int, stride: int = 1) -> list[Layer]:
    """A 3x3 convolution with normalization."""
    return [Conv2D(channels, kernel_size=3, stride=stride, padding=1, bias=False), BatchNorm2D()]


def resnet8(classes: int = 10) -> Network:
    """ResNet with 8 layers for CIFAR-10; 75,290 parameters."""
    return resnet(1, classes)


def resnet20(classes: int = 10) -> Network:
    """ResNet-20 for CIFAR-10 (He et al. 2016); 269,722 parameters."""
    return resnet(3, classes)


def resnet32(classes: int = 10) -> Network:
    """ResNet-32 for CIFAR-10 (He et al. 2016); 464,154 parameters."""
    return resnet(5, classes)


def resnet9(classes: int = 10) -> Network:
    """ResNet-9 of cifar10-fast (Page 2018); 6,573,120 parameters on CIFAR-10."""

    def convolution(channels: int) -> list[Layer]:
        return [*_convolution(channels), ReLU()]

    return Network(
        *convolution(64),
        *convolution(128), MaxPool2D(2),  # (3, 32, 32) -> (128, 16, 16)
        Residual(*convolution(128), *convolution(128)),
        *convolution(256), MaxPool2D(2),  # -> (256, 8, 8)
        *convolution(512), MaxPool2D(2),  # -> (512, 4, 4)
        Residual(*convolution(512), *convolution(512)),
        GlobalMaxPool2D(),
        Dense(classes, bias=False),
        Rescale(0.125),
    )  # fmt: skip


def wideresnet16_4(classes: int = 10) -> Network:
    """WRN-16-4 (Zagoruyko & Komodakis 2016); 2,748,890 parameters on CIFAR-10.

    Normalization and ReLU come before each convolution. A block that changes the shape normalizes its
    input first, for the convolution of the shortcut too.
    """

    def before(channels: int, stride: int = 1) -> list[Layer]:
        conv = Conv2D(channels, kernel_size=3, stride=stride, padding=1, bias=False)
        return [BatchNorm2D(), ReLU(), conv]

    layers: list[Layer] = [Conv2D(16, kernel_size=3, padding=1, bias=False)]
    for channels, stride in ((64, 1), (128, 2), (256, 2)):  # (3, 32, 32) -> ... -> (256, 8, 8)
        normalize, rectify, first = before(channels, stride)
        shortcut = Conv2D(channels, kernel_size=1, stride=stride, bias=False)
        layers += [normalize, rectify, Residual(first, *before(channels), shortcut=shortcut)]
        layers.append(Residual(*before(channels), *before(channels)))
    return Network(*layers, BatchNorm2D(), ReLU(), GlobalAvgPool2D(), Dense(classes))
