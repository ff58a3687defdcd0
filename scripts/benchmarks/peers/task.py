"""What all are given: the first weights, and images in the same batches."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

import backends
from peers.networks import Network

RATE, MOMENTUM = 0.001, 0.9  # a rate so small that training on noise, for as long as it takes, stays finite
DATA_BYTES = 8 << 20  # of images, as many as in MNIST's test set
PHASES = ("training", "inference")


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
    """

    network: Network
    batch_size: int
    threads: int | None
    device: str = "cpu"
    tf32: bool = False

    def __str__(self) -> str:
        if self.threads is None:
            where = f"{self.device} with TF32" if self.tf32 else self.device
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
    weights
        By PyTorch's names. The biases are random too: zeros could lie in the wrong place unseen.
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
        self.weights = {
            name: value if name.endswith("weight") else random.normal(0, 0.1, value.shape).astype(np.float32)
            for name, value in setting.network.built().state_dict().items()
        }

    @property
    def batches(self) -> Any:
        """The images of each batch: (batches, N)."""
        return self.order.reshape(-1, self.setting.batch_size)

    @cached_property
    def x(self) -> Any:
        """The first batch as floats from 0 to 1: (N, C, H, W)."""
        return self.images[self.batches[0]].astype(np.float32) / np.float32(255)
