"""Small networks for digits and pictures."""

from cnn.layers import (
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    ReLU,
    Softmax,
    Tanh,
)
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


def mnist_pytorch(classes: int = 10) -> Network:
    """The network of PyTorch's MNIST example (pytorch/examples); 1,199,882 parameters on MNIST."""
    return Network(
        Conv2D(32, kernel_size=3),  # (1, 28, 28) -> (32, 26, 26)
        ReLU(),
        Conv2D(64, kernel_size=3),  # -> (64, 24, 24)
        ReLU(),
        MaxPool2D(2),  # -> (64, 12, 12)
        Dropout(0.25),
        Flatten(),  # -> (9216,)
        Dense(128),
        ReLU(),
        Dropout(0.5),
        Dense(classes),
    )


def mnist_keras(classes: int = 10) -> Network:
    """The network of Keras's MNIST example ("Simple MNIST convnet"); 34,826 parameters on MNIST."""
    return Network(
        Conv2D(32, kernel_size=3),  # (1, 28, 28) -> (32, 26, 26)
        ReLU(),
        MaxPool2D(2),  # -> (32, 13, 13)
        Conv2D(64, kernel_size=3),  # -> (64, 11, 11)
        ReLU(),
        MaxPool2D(2),  # -> (64, 5, 5)
        Flatten(),  # -> (1600,)
        Dropout(0.5),
        Dense(classes),
    )


def mnist_small(classes: int = 10) -> Network:
    """A normalized network with 15,578 parameters on MNIST."""
    layers: list[Layer] = []
    for channels in (8, 16, 32):  # (1, 28, 28) -> (8, 14, 14) -> (16, 7, 7) -> (32, 3, 3)
        layers += [Conv2D(channels, kernel_size=3, padding=1), BatchNorm2D(), ReLU(), MaxPool2D(2)]
    return Network(*layers, Flatten(), Dense(32), ReLU(), Dropout(0.4), Dense(classes))


def mnist_quick(classes: int = 10) -> Network:
    """A network that reaches 99 % on MNIST in one epoch; 81,146 parameters.

    The layers are those of train_mnist_fast (Oikarinen 2024), narrower: 12, 24 and 128 for 24, 32 and 256.
    """
    return Network(
        Conv2D(12, kernel_size=5),  # (1, 28, 28) -> (12, 24, 24)
        ReLU(),
        MaxPool2D(2),  # -> (12, 12, 12)
        Conv2D(24, kernel_size=3),  # -> (24, 10, 10)
        ReLU(),
        MaxPool2D(2),  # -> (24, 5, 5)
        Flatten(),
        Dense(128),
        ReLU(),
        Dense(classes),
    )


def photo_small(classes: int = 10) -> Network:
    """A network that learns from a few hundred pictures; 25,682 parameters on CIFAR-10.

    What it looks for may be anywhere in the picture, because the features are pooled over all of it.
    """
    layers: list[Layer] = [Conv2D(8, kernel_size=5, padding=2, bias=False), BatchNorm2D(), ReLU()]
    for channels in (16, 32, 64):  # (3, 64, 64) -> (8, 64, 64) -> (16, 32, 32) -> (32, 16, 16) -> (64, 8, 8)
        layers += [
            MaxPool2D(2),
            Conv2D(channels, kernel_size=3, padding=1, bias=False),
            BatchNorm2D(),
            ReLU(),
        ]
    return Network(*layers, GlobalMaxPool2D(), Dense(classes))


def vgg6(classes: int = 10) -> Network:
    """Six convolutions in three stages, each of which halves the image (Simonyan & Zisserman 2015)."""
    layers: list[Layer] = []
    for channels in (32, 64, 128):  # (3, 32, 32) -> (32, 16, 16) -> (64, 8, 8) -> (128, 4, 4)
        for _ in range(2):
            layers += [Conv2D(channels, kernel_size=3, padding=1, bias=False), BatchNorm2D(), ReLU()]
        layers.append(MaxPool2D(2))
    return Network(*layers, Flatten(), Dense(classes))
