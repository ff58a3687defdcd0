"""JAX: a training step and an inference, each compiled as one by XLA."""

import os
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from cnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU, Softmax, Tanh
from cnn.layers.layer import Layer
from peers.peer import Absent, Peer, softmax
from peers.task import MOMENTUM, RATE, Task

try:
    import jax
except ImportError as error:
    raise Absent("JAX is not installed: pip install jax") from error

import jax.numpy as jnp
from jax import lax

Weights = dict[str, Any]


class Jit(Peer):
    """The network as a function of its weights, trained on its logits; batch first."""

    def __init__(self, task: Task) -> None:
        setting = task.setting
        if setting.device == "cpu":
            os.environ["NPROC"] = str(setting.threads)  # read once, when JAX makes its pool of threads
        else:
            precision = "tensorfloat32" if setting.tf32 else "highest"
            jax.config.update("jax_default_matmul_precision", precision)
        self._waits = setting.device == "cpu"
        self._latest: Any = None
        layers = setting.network.make().layers
        self._weights = {name: jnp.array(value) for name, value in task.weights.items()}
        self._velocity = {name: jnp.zeros_like(value) for name, value in self._weights.items()}
        self._images, self._labels = jnp.array(task.images), jnp.array(task.labels)
        self._batches = cycle(list(jnp.array(task.batches)))
        self._x = jnp.array(task.x)
        # the old weights and velocity give their memory to the new
        self._step = jax.jit(partial(train, layers), donate_argnums=(0, 1))
        self._forward = jax.jit(partial(forward, layers))

    def step(self) -> Any:
        self._weights, self._velocity, loss = self._step(
            self._weights, self._velocity, self._images, self._labels, next(self._batches)
        )
        return self._handed_out(loss)

    def infer(self) -> Any:
        return self._handed_out(self._forward(self._weights, self._x))

    def _handed_out(self, result: Any) -> Any:
        """The result, which on the CPU each call waits for, as those of the others do."""
        self._latest = result
        return result.block_until_ready() if self._waits else result

    def probabilities(self) -> Any:
        return softmax(np.asarray(self.infer()))

    def synchronize(self) -> None:
        jax.block_until_ready((self._weights, self._latest))

    def weights(self) -> Weights:
        return {name: np.array(value) for name, value in self._weights.items()}


def require(device: str) -> None:
    """Let JAX use this device from now on; raise Absent where it finds none."""
    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")  # else it takes a GPU where it finds one
        return
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # others need memory too; read with the first array
    try:
        jax.devices("gpu")
    except RuntimeError as error:
        raise Absent('JAX finds no GPU: pip install "jax[cuda12]"') from error


def train(
    layers: Sequence[Layer], weights: Weights, velocity: Weights, images: Any, labels: Any, batch: Any
) -> tuple[Weights, Weights, Any]:
    """A step on the images with the indices ``batch`` (N,); -> new weights and velocity, the mean loss."""
    x = images[batch].astype(jnp.float32) / 255
    loss, gradient = jax.value_and_grad(mean_loss)(weights, layers, x, labels[batch])
    velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, gradient)
    weights = jax.tree.map(lambda w, v: w - RATE * v, weights, velocity)
    return weights, velocity, loss


def mean_loss(weights: Weights, layers: Sequence[Layer], x: Any, labels: Any) -> Any:
    """The mean cross entropy of images (N, C, H, W) and labels (N,)."""
    logits = forward(layers, weights, x)
    right = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - right)


def forward(layers: Sequence[Layer], weights: Weights, x: Any) -> Any:
    """(N, C, H, W) -> logits (N, classes); a Softmax at the end is left to the loss."""
    for index, layer in enumerate(layers):
        x = apply(layer, weights.get(f"{index}.weight"), weights.get(f"{index}.bias"), x)
    return x


def apply(layer: Layer, weight: Any, bias: Any, x: Any) -> Any:
    """One layer, batch first."""
    match layer:
        case Conv2D():
            bias = bias if layer.untied_bias else bias[:, None, None]
            padding = [(p, p) for p in layer.padding]
            return lax.conv_general_dilated(x, weight, layer.stride, padding) + bias
        case Dense():
            return x @ weight.T + bias
        case MaxPool2D():
            return lax.reduce_window(
                x, -jnp.inf, lax.max, (1, 1, *layer.kernel_size), (1, 1, *layer.stride), "VALID"
            )
        case ReLU():
            return jax.nn.relu(x)
        case Tanh():
            return jnp.tanh(x)
        case Flatten():
            return x.reshape(len(x), -1)
        case Softmax():
            return x
    raise NotImplementedError(f"JAX's function for {layer!r}")
