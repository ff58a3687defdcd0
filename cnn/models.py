"""Networks ready to build, by name."""

from collections.abc import Callable

from backends.text import did_you_mean
from cnn.arguments import shown
from cnn.errors import ArgumentError
from cnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU, Softmax, Tanh
from cnn.network import Sequential


def notebook(classes: int = 2) -> Sequential:
    """The network of the notebook that this library grew out of, in its layers and sizes."""
    return Sequential(
        Conv2D(5, kernel_size=3, untied_bias=True),  # (1, 28, 28) -> (5, 26, 26)
        ReLU(),
        MaxPool2D(2, stride=1),  # -> (5, 25, 25)
        Flatten(),  # -> (3125,)
        Dense(100, initializer="lecun_normal"),
        Tanh(),
        Dense(classes, initializer="lecun_normal"),
        Softmax(),
    )


def lenet5(classes: int = 10) -> Sequential:
    """LeNet-5 (LeCun et al. 1998) as it is built today: ReLU, max pooling, full connections."""
    return Sequential(
        Conv2D(6, kernel_size=5, padding=2),  # (1, 28, 28) -> (6, 28, 28)
        ReLU(),
        MaxPool2D(2),  # -> (6, 14, 14)
        Conv2D(16, kernel_size=5),  # -> (16, 10, 10)
        ReLU(),
        MaxPool2D(2),  # -> (16, 5, 5)
        Flatten(),  # -> (400,)
        Dense(120),
        ReLU(),
        Dense(84),
        ReLU(),
        Dense(classes),
    )


MODELS: dict[str, Callable[[int], Sequential]] = {"lenet5": lenet5, "notebook": notebook}


def get(name: str, classes: int) -> Sequential:
    """The model called ``name``, for so many classes; not yet built."""
    if not isinstance(name, str) or name not in MODELS:
        expected = f"expected {' or '.join(MODELS)}{did_you_mean(name, MODELS)}"
        raise ArgumentError(f"unknown model {shown(name)}: {expected}")
    return MODELS[name](classes)
