"""The table of layer cases. A row is all that a new layer needs: test_layers.py derives its checks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cnn
from cnn import Layer


@dataclass(frozen=True)
class Case:
    """A layer and the shape of one sample that goes into it."""

    name: str
    make: Callable[[], Layer]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    plain: bool = True  # its constructor's arguments are plain data


def cube(x: Any) -> Any:
    return x * x * x


def cube_prime(x: Any) -> Any:
    return 3 * x * x


CASES = [
    Case("convolution", lambda: cnn.Conv2D(4, 3), (2, 6, 7), (4, 4, 5)),
    Case("convolution 1x1", lambda: cnn.Conv2D(3, 1), (2, 4, 4), (3, 4, 4)),
    Case("convolution of the whole image", lambda: cnn.Conv2D(3, (4, 5)), (2, 4, 5), (3, 1, 1)),
    Case("convolution, no bias", lambda: cnn.Conv2D(3, (2, 3), bias=False), (2, 5, 5), (3, 4, 3)),
    Case("convolution, untied bias", lambda: cnn.Conv2D(3, 3, untied_bias=True), (1, 5, 6), (3, 3, 4)),
    Case("convolution, padded", lambda: cnn.Conv2D(3, 3, padding=(2, 1)), (2, 5, 4), (3, 7, 4)),
    Case("convolution, strided", lambda: cnn.Conv2D(3, 3, stride=(2, 3)), (2, 8, 9), (3, 3, 3)),
    Case("convolution, strided, rows left over", lambda: cnn.Conv2D(3, 2, stride=3), (2, 7, 6), (3, 2, 2)),
    Case("convolution, dilated", lambda: cnn.Conv2D(3, (3, 2), dilation=(2, 3)), (2, 7, 8), (3, 3, 5)),
    Case("convolution, in groups", lambda: cnn.Conv2D(6, 3, groups=2), (4, 5, 5), (6, 3, 3)),
    Case("convolution, depthwise", lambda: cnn.Conv2D(3, 3, padding=1, groups=3), (3, 5, 5), (3, 5, 5)),
    Case(
        "convolution, everything at once",
        lambda: cnn.Conv2D(4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        (4, 7, 6),
        (4, 4, 8),
    ),
    Case("max pooling", lambda: cnn.MaxPool2D(2), (3, 6, 4), (3, 3, 2)),
    Case("max pooling, windows overlap", lambda: cnn.MaxPool2D(3, stride=1), (2, 5, 6), (2, 3, 4)),
    Case("max pooling, rows left over", lambda: cnn.MaxPool2D(2), (2, 5, 7), (2, 2, 3)),
    Case("max pooling, padded", lambda: cnn.MaxPool2D((3, 2), stride=2, padding=1), (2, 6, 5), (2, 3, 3)),
    Case("max pooling, dilated", lambda: cnn.MaxPool2D(2, stride=1, dilation=2), (2, 5, 6), (2, 3, 4)),
    Case("max pooling, 17x17 taps", lambda: cnn.MaxPool2D(17, stride=1), (1, 18, 18), (1, 2, 2)),
    Case("average pooling", lambda: cnn.AvgPool2D(2), (3, 6, 4), (3, 3, 2)),
    Case("average pooling, overlap, padded", lambda: cnn.AvgPool2D(3, 2, padding=1), (2, 6, 5), (2, 3, 3)),
    Case("dense", lambda: cnn.Dense(5), (7,), (5,)),
    Case("dense, no bias", lambda: cnn.Dense(5, bias=False), (7,), (5,)),
    Case("relu", lambda: cnn.ReLU(), (3, 4, 5), (3, 4, 5)),
    Case("tanh", lambda: cnn.Tanh(), (3, 4, 5), (3, 4, 5)),
    Case("softmax", lambda: cnn.Softmax(), (6,), (6,)),
    Case("softmax over channels", lambda: cnn.Softmax(), (3, 2, 2), (3, 2, 2)),
    Case("a function of one's own", lambda: cnn.Activation(cube, cube_prime), (3, 4), (3, 4), plain=False),
    Case("flatten", lambda: cnn.Flatten(), (2, 3, 4), (24,)),
    Case("reshape", lambda: cnn.Reshape((4, 6)), (2, 3, 4), (4, 6)),
    Case(
        "a network in a network",
        lambda: cnn.Sequential(cnn.Conv2D(2, 3), cnn.ReLU(), cnn.Flatten(), cnn.Dense(3)),
        (1, 5, 5),
        (3,),
    ),
]
