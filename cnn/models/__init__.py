"""Networks ready to build, by name."""

from collections.abc import Callable

from backends.text import did_you_mean
from cnn.models import own
from cnn.models.airbench import airbench93, airbench94
from cnn.models.classic import lenet5, mnist_keras, mnist_pytorch, mnist_small, notebook, vgg6
from cnn.models.mobilenet import mobilenet_small
from cnn.models.references import reference_names
from cnn.models.resnet import resnet8, resnet9, resnet20, resnet32, wideresnet16_4
from cnn.network import Network
from cnn.support.arguments import shape, shown
from cnn.support.errors import ArgumentError

MODELS: dict[str, Callable[[int], Network]] = {
    "notebook": notebook,
    "lenet5": lenet5,
    "mnist-pytorch": mnist_pytorch,
    "mnist-keras": mnist_keras,
    "mnist-small": mnist_small,
    "vgg6": vgg6,
    "resnet8": resnet8,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet9": resnet9,
    "wideresnet16-4": wideresnet16_4,
    "mobilenet-small": mobilenet_small,
    "airbench93": airbench93,
    "airbench94": airbench94,
}
__all__ = ["MODELS", "get", "make", "reference_names", *(function.__name__ for function in MODELS.values())]


def make(name: str, classes: int = 10, input_shape: tuple[int, ...] | None = None) -> Network:
    """The model called ``name``, for so many classes; not yet built.

    ``name`` may also be a network of one's own: "mynet.py:make", where ``make`` is a network or a function
    that returns one, or a .safetensors file, whose architecture is taken without its weights. The channels
    and the size of the images are inferred by ``build``. ``input_shape`` (C, H, W) is checked now. Raises
    ArgumentError for a name that is unknown, and ShapeError if the images are too small.
    """
    if isinstance(name, str) and own.is_own(name):
        return own.make(name, classes, input_shape)
    if not isinstance(name, str) or name not in MODELS:
        expected = f"expected {', '.join(MODELS)}, or your own as in {own.EXAMPLE}"
        raise ArgumentError(f"unknown model {shown(name)}: {expected}{did_you_mean(name, MODELS)}")
    network = MODELS[name](classes)
    if input_shape is not None:
        network.count_parameters(shape("input_shape", input_shape))  # builds it for a moment
    return network


def require(name: str) -> None:
    """Raise ArgumentError unless this is a model; the user's own code is not run."""
    if not own.is_own(name):
        make(name)


def get(name: str, classes: int) -> Network:
    """:func:`make`, as version 0.1 called it."""
    return make(name, classes)
