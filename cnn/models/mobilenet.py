"""A small network of depthwise separable convolutions."""

from cnn.layers import BatchNorm2D, Conv2D, Dense, GlobalAvgPool2D, Layer, ReLU
from cnn.network import Network


def mobilenet_small(classes: int = 10) -> Network:
    """MobileNet (Howard et al. 2017) for pictures of 32x32; 205,642 parameters on CIFAR-10.

    Each depthwise separable convolution filters every channel by itself, and then mixes them by a 1x1
    convolution.
    """
    layers: list[Layer] = [Conv2D(32, kernel_size=3, padding=1, bias=False), BatchNorm2D(), ReLU()]
    before = 32
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 1)):
        layers += [
            Conv2D(before, kernel_size=3, stride=stride, padding=1, groups=before, bias=False),
            BatchNorm2D(), ReLU(),
            Conv2D(channels, kernel_size=1, bias=False), BatchNorm2D(), ReLU(),
        ]  # fmt: skip
        before = channels
    return Network(*layers, GlobalAvgPool2D(), Dense(classes))
