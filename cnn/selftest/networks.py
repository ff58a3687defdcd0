"""Small networks that have every layer in them, with its options, in the neighbourhoods that matter."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cnn.layers import (
    Activation,
    AvgPool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Reshape,
    Softmax,
    Tanh,
)
from cnn.network import Network


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


EXAMPLES = [
    Example("convolution", lambda: [Conv2D(4, 3), Tanh(), Flatten(), Dense(3)], (2, 6, 7)),
    Example("convolution 1x1 without bias", lambda: [Conv2D(5, 1, bias=False), Conv2D(2, 2)], (3, 4, 5)),
    Example("convolution, padded", lambda: [Conv2D(3, 3, padding=(2, 1)), Conv2D(2, 3)], (2, 5, 4)),
    Example("convolution, strided", lambda: [Conv2D(3, 3, stride=(2, 3)), Conv2D(2, 2)], (2, 9, 14)),
    Example("convolution, dilated", lambda: [Conv2D(3, (3, 2), dilation=(2, 3)), Conv2D(2, 2)], (2, 7, 8)),
    Example("convolution in groups", lambda: [Conv2D(6, 3, groups=2), Conv2D(6, 2, groups=6)], (4, 5, 5)),
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
    Example("dense, ReLU", lambda: [Dense(6), ReLU(), Dense(5, bias=False), ReLU(), Dense(3)], (7,)),
    Example("softmax", lambda: [Dense(5), Softmax()], (6,)),
    Example("softmax over channels", lambda: [Conv2D(3, 2), Softmax()], (2, 3, 3)),
    Example("a function of one's own", lambda: [Dense(4), Activation(_cube, _cube_prime)], (3,)),
    Example("reshape", lambda: [Reshape((2, 3, 4)), Conv2D(2, 2), Reshape((6, 2)), Flatten()], (24,)),
    Example(
        "a network in a network",
        lambda: [Network(Conv2D(2, 3), ReLU()), Network(Flatten(), Dense(3), ReLU()), Dense(2)],
        (1, 5, 5),
    ),
]
