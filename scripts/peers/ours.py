"""xpcnn, by kernel set."""

from itertools import chain, repeat
from typing import Any

import numpy as np

import backends
import cnn
from cnn.training import compute_gradients, make_feed, make_loss
from peers.peer import Absent, Peer, softmax
from peers.task import MOMENTUM, RATE, Task


class Ours(Peer):
    """The network as it is, in steps as ``cnn.fit`` makes them; inside, the batch is the last axis."""

    def __init__(self, task: Task, kernels: str) -> None:
        setting = task.setting
        backend = backends.get("cpu", kernels=kernels, threads=setting.threads)
        self.network = setting.network.make()
        self.network.build(setting.network.shape, backend=backend)
        self.network.load_state_dict(task.weights)
        self._loss = make_loss(self.network, None)
        self._optimizer = cnn.SGD(RATE, momentum=MOMENTUM)
        self._optimizer.build(self.network)
        self._rate = backend.asarray(np.array([RATE]), dtype=self.network.dtype)
        feed = make_feed(self.network, cnn.data.Dataset(task.images, task.labels), setting.batch_size)
        feed.reorder(task.order)
        self._batches = chain.from_iterable(repeat(feed))
        # (N, C, H, W) -> (C, H, W, N)
        self._x = backend.asarray(np.ascontiguousarray(np.moveaxis(task.x, 0, -1)))

    def step(self) -> Any:
        x, labels = next(self._batches)
        losses, _ = compute_gradients(self.network, self._loss, x, labels)
        self._optimizer.step(self._rate)
        return losses

    def infer(self) -> Any:
        return self.network.forward(self._x)

    def probabilities(self) -> Any:
        y = self.infer().T.copy()  # (classes, N) -> (N, classes)
        return y if self.network.ends_in_softmax else softmax(y)

    def gradients(self) -> dict[str, Any]:
        return {name: parameter.grad.copy() for name, parameter in self.network.parameters.items()}

    def weights(self) -> dict[str, Any]:
        return self.network.state_dict()


def require(kernels: str) -> None:
    """Raise Absent unless the CPU has this set of kernels."""
    try:
        backends.get("cpu", kernels=kernels)
    except (backends.ArgumentError, backends.DeviceUnavailable) as error:
        raise Absent(str(error)) from error
