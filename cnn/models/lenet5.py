"""LeNet-5."""

from cnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU
from cnn.network import Network


def lenet5(classes: int = 10) -> Network:
    """LeNet-5 (LeCun et al. 1998) as it is built today: ReLU, max pooling, full connections."""
    return Network(
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
