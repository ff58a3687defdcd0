"""Networks ready to build: by name, or a user's own; and their heads."""

from collections.abc import Callable

from backends.text import did_you_mean
from cnn.models import sources
from cnn.models.airbench import airbench93, airbench94, airbench_digits, airbench_grey
from cnn.models.classic import (
    lenet5,
    mnist_keras,
    mnist_pytorch,
    mnist_quick,
    mnist_small,
    notebook,
    photo_small,
    vgg6,
)
from cnn.models.mobilenet import mobilenet_small
from cnn.models.references import reference_names
from cnn.models.resnet import resnet8, resnet9, resnet20, resnet32, wideresnet16_4
from cnn.models.sources import Source
from cnn.network import Network
from cnn.support.arguments import shape, shown
from cnn.support.errors import ArgumentError, ShapeError
from cnn.support.text import dimensions

CLASSES, INPUT_SHAPE = 10, (1, 28, 28)  # of networks that are made without data: those of MNIST
MODELS: dict[str, Callable[[int], Network]] = {
    "notebook": notebook,
    "lenet5": lenet5,
    "mnist-pytorch": mnist_pytorch,
    "mnist-keras": mnist_keras,
    "mnist-small": mnist_small,
    "mnist-quick": mnist_quick,
    "photo-small": photo_small,
    "vgg6": vgg6,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet9": resnet9,
    "wideresnet16-4": wideresnet16_4,
    "mobilenet-small": mobilenet_small,
    "airbench93": airbench93,
    "airbench94": airbench94,
    "airbench-grey": airbench_grey,
    "airbench-digits": airbench_digits,
}
__all__ = [
    "MODELS",
    "find",
    "get",
    "make",
    "reference_names",
    *(function.__name__ for function in MODELS.values()),
]


def make(name: str, classes: int = CLASSES, input_shape: tuple[int, ...] | None = None) -> Network:
    """The model called ``name``, for so many classes; not yet built.

    ``name`` may also be a network of one's own: "mynet.py:make", where ``make`` is a network or a function
    that returns one, a .toml file, or a .safetensors file or the folder of a run, whose architecture is taken
    without its weights; layers that were frozen there are trainable. The channels and the size of the images
    are inferred by ``build``. ``input_shape`` (C, H, W) is checked now. Raises ArgumentError for a name that
    is unknown, and ShapeError if the images are too small.
    """
    network = find(name).make(classes, input_shape)
    if name not in MODELS and sources.has_weights(name):
        for layer in network.walk():
            layer.trainable = True
    return network


def find(name: str) -> Source:
    """The source of the network that ``name`` stands for, as :func:`make` takes it.

    Raises ArgumentError or CheckpointError if there is none.
    """
    if isinstance(name, str) and name not in MODELS and sources.is_own(name):
        return sources.find(name)
    if not isinstance(name, str) or name not in MODELS:
        own = f"your own: {sources.EXAMPLE}, a .toml or .safetensors file, or the folder of a run"
        expected = f"expected {', '.join(MODELS)}, or {own}"
        raise ArgumentError(f"unknown model {shown(name)}: {expected}{did_you_mean(name, MODELS)}")
    return Source(lambda classes, input_shape: _checked(name, MODELS[name](classes), input_shape))


def _checked(name: str, network: Network, input_shape: tuple[int, ...] | None) -> Network:
    if input_shape is not None:
        try:
            network.count_parameters(shape("input_shape", input_shape))  # builds it for a moment
        except ShapeError as error:
            sizes = dimensions(input_shape)
            raise ShapeError(f"the model {name} cannot take images of {sizes}: {error}") from error
    return network


def require(name: str) -> None:
    """Raise ArgumentError unless this is a model; a user's own file is not read."""
    if not (isinstance(name, str) and sources.is_own(name)):
        find(name)


def get(name: str, classes: int) -> Network:
    """:func:`make`, as version 0.1 called it."""
    return make(name, classes)
