"""xpcnn, by kernel set."""

from typing import Any

import numpy as np

import backends
import cnn
from backends.graph import recordable
from cnn.training.evaluation import make_feed, make_loss
from cnn.training.metrics import Totals
from cnn.training.step import TrainingStep
from peers.peer import Absent, Peer, softmax
from peers.task import MOMENTUM, RATE, Task


class Ours(Peer):
    """The network as it is, in steps as ``cnn.fit`` makes them; inside, the batch is the last axis."""

    def __init__(self, task: Task, kernels: str) -> None:
        setting = task.setting
        self._backend = backend = setting.backend(kernels)
        self.network = setting.network.built(backend)
        self.network.load_state_dict(task.weights)
        self._loss = make_loss(self.network, None)
        optimizer = cnn.SGD(RATE, momentum=MOMENTUM)
        optimizer.build(self.network)
        feed = make_feed(self.network, cnn.data.Dataset(task.images, task.labels), setting.batch_size)
        feed.start(task.order, np.full(len(feed), RATE))
        self._step = TrainingStep(self.network, self._loss, optimizer, feed, Totals(self.network))
        # (N, C, H, W) -> (C, H, W, N)
        self._x = backend.asarray(np.ascontiguousarray(np.moveaxis(task.x, 0, -1)))

        def forward() -> None:
            self._y = self.network.forward(self._x)

        self._forward = backend.graph(recordable(forward))

    def step(self) -> Any:
        self._step()
        return self._loss.losses

    def infer(self) -> Any:
        self._forward()
        return self._y

    def probabilities(self) -> Any:
        y = self.to_host(self.infer()).T  # (classes, N) -> (N, classes)
        return y if self.network.gives_probabilities else softmax(y)

    def synchronize(self) -> None:
        self._backend.synchronize()

    def to_host(self, array: Any) -> Any:
        return self._backend.to_host(array)

    def gradients(self) -> dict[str, Any]:
        parameters = self.network.parameters.items()
        return {name: self.to_host(found.grad) for name, found in parameters if not found.frozen}

    def weights(self) -> dict[str, Any]:
        return self.network.state_dict()


def require(device: str, kernels: str) -> None:
    """Raise Absent unless the device has this set of kernels."""
    try:
        backends.get(device, kernels=kernels)
    except (backends.ArgumentError, backends.DeviceUnavailable) as error:
        raise Absent(str(error)) from error
