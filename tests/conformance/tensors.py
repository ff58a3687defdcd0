"""Tensors as ONNX has them, on the host and batch first, on their way through a layer and back."""

from typing import Any

import numpy as np

from backends import Backend
from backends.memory import Array
from cnn.layers import Layer
from cnn.network import Network
from cnn.support.dtypes import WIDE
from conformance.node import NotOurs

Tensor = Any  # a numpy array
Tensors = list[Tensor]

DTYPE = "its numbers are neither float32 nor float64"


def built(backend: Backend, layer: Layer, x: Tensor, weights: Tensors) -> Network:
    """A network of this layer alone, for samples as in ``x``; ``weights`` in the order of its parameters."""
    network = Network(layer)
    network.build(x.shape[1:], backend=backend, dtype=known(x).dtype.name)
    network.load_state_dict(dict(zip(network.parameters, weights, strict=True)))
    return network


def infer(backend: Backend, layer: Layer, x: Tensor, weights: Tensors | None = None) -> Tensor:
    """What the layer makes of ``x``."""
    network = built(backend, layer, x, weights or [])
    return to_host(backend, network.forward(to_device(backend, x)))


def product(backend: Backend, a: Tensor, b: Tensor, addend: Tensor | None = None) -> Tensor:
    """``a @ b``, or that added to ``addend``."""
    out = np.zeros((len(a), b.shape[1]), known(a).dtype) if addend is None else np.array(addend)
    left, right, y = (backend.asarray(np.ascontiguousarray(matrix)) for matrix in (a, b, out))
    backend.matmul(left, right, out=y, accumulate=addend is not None)
    return backend.to_host(y)


def to_device(backend: Backend, x: Tensor) -> Array:
    """Batch last, in order: kernels take the slower way for views."""
    return backend.asarray(np.ascontiguousarray(np.moveaxis(known(x), 0, -1)))


def to_host(backend: Backend, y: Array) -> Tensor:
    """Batch first."""
    return np.moveaxis(backend.to_host(y), -1, 0)


def known(x: Tensor) -> Tensor:
    """``x`` itself; NotOurs where no network has numbers of its kind."""
    if x.dtype.name not in WIDE:
        raise NotOurs(DTYPE)
    return x


def as_image(x: Tensor) -> Tensor:
    """With a height of 1 where there was none: (N, C, W) -> (N, C, 1, W)."""
    return x[:, :, None] if x.ndim == 3 else x


def like(x: Tensor, image: Tensor) -> Tensor:
    """``image`` without the height that :func:`as_image` gave ``x``."""
    return image[:, :, 0] if x.ndim == 3 else image
