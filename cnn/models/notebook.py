"""The network of the notebook that this library grew out of."""

from cnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU, Softmax, Tanh
from cnn.network import Network


def notebook(classes: int = 2) -> Network:
    """The network of the notebook that this library grew out of, in its layers and sizes."""
    return Network(
        Conv2D(5, kernel_size=3, untied_bias=True),  # (1, 28, 28) -> (5, 26, 26)
        ReLU(),
        MaxPool2D(2, stride=1),  # -> (5, 25, 25)
        Flatten(),  # -> (3125,)
        Dense(100, initializer="lecun_normal"),
        Tanh(),
        Dense(classes, initializer="lecun_normal"),
        Softmax(),
    )
