"""What a training would take, before it takes anything."""

from dataclasses import dataclass
from math import prod

from backends import Window
from cnn import summary
from cnn.data import Dataset
from cnn.layers import Conv2D
from cnn.layers.layer import Layer
from cnn.network import EVALUATION_BATCH, Sequential
from cnn.optimizers import Optimizer


@dataclass(frozen=True)
class Memory:
    """Bytes on the device that a training's arrays take; small ones are left out."""

    data: int  # both sets, and the order of the images
    parameters: int  # with their gradients
    optimizer: int
    activations: int
    workspace: int  # of the kernels

    @property
    def total(self) -> int:
        """All of them."""
        return self.data + self.parameters + self.optimizer + self.activations + self.workspace


def memory(
    network: Sequential, optimizer: Optimizer, train: Dataset, test: Dataset, batch_size: int
) -> Memory:
    """What training ``network``, which is built, on ``train`` and testing it on ``test`` would take."""
    itemsize = network.backend.xp.dtype(network.dtype).itemsize
    batch = min(batch_size, len(train))
    largest_batch = max(batch, min(EVALUATION_BATCH, len(test)))
    rows = summary.rows(network)
    kept = sum(row["bytes"] for row in rows) * batch
    passed_on = 2 * max(prod(row["output_shape"]) for row in rows) * itemsize * largest_batch
    inputs = prod(train.shape) * itemsize * (batch + largest_batch)
    vectors = len(optimizer.state_names) + 2  # a change and a scratch vector
    return Memory(
        data=sum(_data_bytes(part, itemsize) for part in (train, test)),
        parameters=network.flat.value.nbytes + network.flat.grad.nbytes,
        optimizer=vectors * network.flat.value.nbytes,
        activations=kept + passed_on + inputs,
        workspace=max(_workspace_bytes(layer, largest_batch, itemsize) for layer in network.walk()),
    )


def _data_bytes(part: Dataset, itemsize: int) -> int:
    """Bytes stay bytes there, floats take on the network's dtype; the order has a number for each label."""
    images = part.images
    return images.size * (1 if images.dtype.kind == "u" else itemsize) + 2 * part.labels.nbytes


def _workspace_bytes(layer: Layer, batch: int, itemsize: int) -> int:
    """What the portable kernels need beside a layer's input and output: a border, and columns or taps."""
    window: Window | None = getattr(layer, "window", None)
    if window is None:
        return 0
    C, H, W = layer.input_shape
    O, OH, OW = layer.output_shape
    border = C * prod(window.padded(H, W)) * batch * itemsize if window.has_padding else 0
    if not isinstance(layer, Conv2D):
        return border + 2 * O * OH * OW * batch * itemsize
    row = C // layer.groups * window.taps * OW * batch * itemsize
    rows = max(1, min(OH, layer.backend.column_bytes // row))
    return border + rows * row
