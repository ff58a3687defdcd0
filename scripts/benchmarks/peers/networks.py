"""The networks that are measured, each described once, in layers of ours; the peers translate them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod

import backends
import cnn
from cnn.comparison.workload import work

PLAIN = (cnn.Conv2D, cnn.Dense, cnn.MaxPool2D, cnn.ReLU, cnn.Tanh, cnn.Flatten, cnn.Softmax)


@dataclass(frozen=True)
class Network:
    """A network that is known by its name, and what it is trained on."""

    name: str
    make: Callable[[], cnn.Sequential] = field(compare=False)  # -> not yet built
    classes: int = 10
    shape: tuple[int, int, int] = (1, 28, 28)  # of an image, (C, H, W)
    frozen: tuple[str, ...] = ()  # the layers that training leaves as they are

    def built(self, backend: backends.Backend | None = None, dtype: str = "float32") -> cnn.Sequential:
        """The network with its first weights, in plain NumPy unless a backend is given."""
        network = self.make()
        backend = backend or backends.get("cpu", kernels="portable")
        network.build(self.shape, backend=backend, seed=0, dtype=dtype)
        network.freeze(*self.frozen)
        return network

    @property
    def is_plain(self) -> bool:
        """Whether it is a chain of the layers that all libraries here have a function for."""
        return all(isinstance(layer, PLAIN) for layer in self.make().layers)

    @property
    def depth(self) -> int:
        """How many passes follow each other; layers that are computed together are one."""
        return len(list(self.built().walk_passes()))

    def flops(self, phase: str, batch_size: int) -> int:
        """Multiplications and additions of a training step, or of an inference."""
        layers = work(self.built(), batch_size)
        forward = sum(layer.forward_flops for layer in layers)
        return forward if phase == "inference" else forward + sum(layer.backward_flops for layer in layers)

    def parameter_bytes(self) -> list[int]:
        """Of each layer that has parameters, in order."""
        layers = (layer.parameters.values() for layer in self.built().walk())
        sizes = (4 * sum(prod(parameter.shape) for parameter in parameters) for parameters in layers)
        return [size for size in sizes if size]

    def moved_bytes(self, phase: str) -> int:
        """The parameters' way through memory in a step: what must be read and written for one image.

        Read forward, and but for the first layer's again for the gradient of the input; the gradient
        written; value, gradient and velocity read, value and velocity written in the update.
        """
        first, *_ = sizes = self.parameter_bytes()
        return sum(sizes) if phase == "inference" else 8 * sum(sizes) - first


def example() -> cnn.Sequential:
    """The network of PyTorch's MNIST example, without its dropout."""
    return cnn.Sequential(
        cnn.Conv2D(32, kernel_size=3),  # (1, 28, 28) -> (32, 26, 26)
        cnn.ReLU(),
        cnn.Conv2D(64, kernel_size=3),  # -> (64, 24, 24)
        cnn.ReLU(),
        cnn.MaxPool2D(2),  # -> (64, 12, 12)
        cnn.Flatten(),  # -> (9216,)
        cnn.Dense(128),
        cnn.ReLU(),
        cnn.Dense(10),
    )


def vgg() -> cnn.Sequential:
    """Six convolutions after Simonyan and Zisserman (2014), for the images of CIFAR-10."""
    return cnn.Sequential(
        cnn.Conv2D(64, kernel_size=3, padding=1),  # (3, 32, 32) -> (64, 32, 32)
        cnn.ReLU(),
        cnn.Conv2D(64, kernel_size=3, padding=1),
        cnn.ReLU(),
        cnn.MaxPool2D(2),  # -> (64, 16, 16)
        cnn.Conv2D(128, kernel_size=3, padding=1),  # -> (128, 16, 16)
        cnn.ReLU(),
        cnn.Conv2D(128, kernel_size=3, padding=1),
        cnn.ReLU(),
        cnn.MaxPool2D(2),  # -> (128, 8, 8)
        cnn.Conv2D(256, kernel_size=3, padding=1),  # -> (256, 8, 8)
        cnn.ReLU(),
        cnn.Conv2D(256, kernel_size=3, padding=1),
        cnn.ReLU(),
        cnn.MaxPool2D(2),  # -> (256, 4, 4)
        cnn.Flatten(),  # -> (4096,)
        cnn.Dense(256),
        cnn.ReLU(),
        cnn.Dense(10),
    )


def two_convolutions(channels: int) -> cnn.Sequential:
    """A small network for images of any size: (1, H, W) -> (channels, H, W) twice, pooled -> (10,)."""
    return cnn.Sequential(
        cnn.Conv2D(channels, kernel_size=3, padding=1),
        cnn.ReLU(),
        cnn.Conv2D(channels, kernel_size=3, padding=1),
        cnn.ReLU(),
        cnn.MaxPool2D(2),
        cnn.Flatten(),
        cnn.Dense(10),
    )


def sized(channels: int, size: int) -> Network:
    """Two convolutions of so many channels on images of so many pixels a side."""
    name = f"two convolutions, {channels} channels, {size}x{size}"
    return Network(name, partial(two_convolutions, channels), shape=(1, size, size))


def model(name: str, classes: int = 10, *, colour: bool = False, frozen: Sequence[str] = ()) -> Network:
    """One of ``cnn.models``, on digits or, in ``colour``, on images as large as those of CIFAR-10."""
    shape = (3, 32, 32) if colour else (1, 28, 28)
    return Network(name, partial(cnn.models.make, name, classes), classes, shape, tuple(frozen))


NETWORKS = {
    network.name: network
    for network in (
        model("notebook", classes=2),
        model("lenet5"),
        Network("example", example),
        model("resnet20", colour=True),
        model("airbench94", colour=True, frozen=["0"]),  # the layer that is whitened
        model("airbench93", colour=True, frozen=["0"]),
        model("vgg6", colour=True),
        Network("vgg", vgg, shape=(3, 32, 32)),
    )
}
MEASURED = {  # unless asked
    "cpu": ("notebook", "lenet5", "example", "resnet20", "airbench94", "airbench93", "vgg6"),
    "cuda": ("notebook", "lenet5", "vgg"),
}
