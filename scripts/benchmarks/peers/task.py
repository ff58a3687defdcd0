"""What all are given: the first weights, and images in the same batches."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

import backends
import cnn
from peers.networks import Network

RATE, MOMENTUM = 0.001, 0.9  # a rate so small that training on noise, for as long as it takes, stays finite
DATA_BYTES = 8 << 20  # of images, as many as in MNIST's test set
CALIBRATED = 8  # images that the first statistics of normalizations are made of
PHASES = ("training", "inference")


@dataclass(frozen=True)
class Training:
    """The loss and the update of a training step.

    Attributes
    ----------
    optimizer
        The name of the optimizer, as ``cnn train`` takes it.
    momentum, nesterov
        Arguments of SGD and Muon.
    betas
        An argument of Adam and AdamW.
    steps, hidden_only, unit_rows
        Arguments of :class:`cnn.Muon`.
    label_smoothing
        An argument of the cross entropy.
    clip
        The norm that a gradient is scaled down to; 0 turns this off.
    """

    optimizer: str = "sgd"
    momentum: float = MOMENTUM
    nesterov: bool = False
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    steps: int = 5
    hidden_only: bool = False
    unit_rows: bool = False
    label_smoothing: float = 0.0
    clip: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What is computed, how much of it at once, and where.

    Attributes
    ----------
    threads
        How many each library may use; None on a GPU.
    device
        "cpu" or "cuda".
    tf32
        Whether products of float32 may use TF32, on a GPU.
    dtype
        "float32" or, on a GPU, "bfloat16": of activations and products; parameters are float32 in both.
    training
        The loss and the update; only PyTorch and ours have others than the default.
    """

    network: Network
    batch_size: int
    threads: int | None
    device: str = "cpu"
    tf32: bool = False
    dtype: str = "float32"
    training: Training = Training()

    def __str__(self) -> str:
        if self.threads is None:
            where = f"{self.device} with TF32" if self.tf32 else self.device
            where = where if self.dtype == "float32" else f"{where} in {self.dtype}"
        else:
            where = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.network.name}, batch {self.batch_size}, {where}"

    def backend(self, kernels: str) -> backends.Backend:
        """Ours, with these kernels."""
        return backends.get(self.device, kernels=kernels, threads=self.threads, tf32=self.tf32)


class Task:
    """A setting with its data and weights; the same every time it is made.

    Attributes
    ----------
    images, labels
        uint8 (M, C, H, W) and int64 (M,), random: unlike digits, they have no place that is always 0, which
        would hide an error, and in the end fill the velocity with subnormal numbers.
    order
        A permutation (M,) of them; the batches are its pieces, round and round.
    network
        Ours, built in plain NumPy, for those who translate it.
    weights
        Of all parameters and statistics, by PyTorch's names. Biases, and what a normalization scales with,
        are random too, because zeros and ones could lie in the wrong place unseen. The statistics are those
        of the first images.
    """

    def __init__(self, setting: Setting) -> None:
        random = np.random.default_rng(0)
        self.setting = setting
        shape = setting.network.shape
        batches = max(2, DATA_BYTES // prod(shape) // setting.batch_size)
        count = batches * setting.batch_size
        self.images = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        self.labels = random.integers(0, setting.network.classes, count)
        self.order = random.permutation(count)
        self.network = setting.network.built()
        self.weights = first_weights(setting.network, self.images[:CALIBRATED], random)

    @property
    def batches(self) -> Any:
        """The images of each batch: (batches, N)."""
        return self.order.reshape(-1, self.setting.batch_size)

    @cached_property
    def x(self) -> Any:
        """The first batch as floats from 0 to 1: (N, C, H, W)."""
        return as_floats(self.images[self.batches[0]])


def first_weights(network: Network, images: Any, random: np.random.Generator) -> dict[str, Any]:
    """The weights that all start from; see :class:`Task`."""
    built = network.built()
    weights = built.state_dict()
    for name, parameter in built.parameters.items():
        if parameter.value.ndim == 1 or not name.endswith("weight"):
            scattered = random.normal(name.endswith("weight"), 0.1, parameter.value.shape)
            weights[name] = scattered.astype(np.float32)
    for name in network.frozen:
        weights |= whitening(name, weights[f"{name}.weight"])
    if built.statistics:
        built.load_state_dict(weights)
        for layer in built.walk():
            if isinstance(layer, cnn.BatchNorm2D):
                layer.momentum = 1.0  # nothing is left of the statistics before
        built.forward(np.ascontiguousarray(np.moveaxis(as_floats(images), 0, -1)), training=True)
        weights = built.state_dict()
    return weights


def whitening(name: str, weight: Any) -> dict[str, Any]:
    """A convolution of this weight (O, C, KH, KW) whose outputs for the images have mean 0 and variance 1.

    Otherwise some channels hardly vary after GELU, and a normalization enlarges their rounding errors.
    """
    # the pixels are independent numbers from 0 to 1, so their mean is 1/2 and their variance 1/12
    weight = weight * np.sqrt(12 / np.square(weight).sum((1, 2, 3), keepdims=True))
    bias = weight.sum((1, 2, 3)) / -2
    return {f"{name}.weight": weight.astype(np.float32), f"{name}.bias": bias.astype(np.float32)}


def as_floats(images: Any) -> Any:
    """Bytes as numbers from 0 to 1."""
    return images.astype(np.float32) / np.float32(255)
