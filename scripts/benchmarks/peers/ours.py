"""xpcnn, by kernel set."""

import inspect
from typing import Any

import numpy as np

import backends
import cnn
from backends.graph import recordable
from cnn.training.evaluation import make_feed, make_loss
from cnn.training.metrics import Totals
from cnn.training.named import OPTIMIZERS
from cnn.training.optimizers import Optimizer
from cnn.training.step import TrainingStep
from peers.peer import Absent, Peer, softmax
from peers.task import RATE, Task, Training


class Ours(Peer):
    """The network as it is, in steps as ``cnn.fit`` makes them; inside, the batch is the last axis."""

    def __init__(self, task: Task, kernels: str) -> None:
        setting, training = task.setting, task.setting.training
        self._backend = backend = setting.backend(kernels)
        self.network = setting.network.built(backend, setting.dtype)
        self.network.load_state_dict(task.weights)
        smoothed = cnn.CrossEntropy(training.label_smoothing) if training.label_smoothing else None
        self._loss = make_loss(self.network, smoothed)
        optimizer = make_optimizer(training)
        optimizer.build(self.network)
        feed = make_feed(self.network, cnn.data.Dataset(task.images, task.labels), setting.batch_size)
        feed.start(task.order, np.full(len(feed), RATE))
        transforms = [cnn.ClipNorm(training.clip)] if training.clip else []
        totals = Totals(self.network)
        self.training_step = TrainingStep(
            self.network, self._loss, optimizer, feed, totals, transforms=transforms
        )
        # (N, C, H, W) -> (C, H, W, N)
        self._x = backend.asarray(np.ascontiguousarray(np.moveaxis(task.x, 0, -1)))

        def forward() -> None:
            self._y = self.network.forward(self._x)

        self._forward = backend.graph(recordable(forward))

    def step(self) -> Any:
        self.training_step()
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


def make_optimizer(training: Training) -> Optimizer:
    """The optimizer by its name, with the settings that it has."""
    kind = OPTIMIZERS[training.optimizer]
    known = inspect.signature(kind).parameters
    settings = {
        "momentum": training.momentum,
        "nesterov": training.nesterov,
        "weight_decay": training.weight_decay,
        "betas": training.betas,
        "steps": training.steps,
        "hidden_only": training.hidden_only,
        "unit_rows": training.unit_rows,
        "other_rate": RATE,
    }
    return kind(RATE, **{name: value for name, value in settings.items() if name in known})


def require(device: str, kernels: str) -> None:
    """Raise Absent unless the device has this set of kernels."""
    try:
        backends.get(device, kernels=kernels)
    except (backends.ArgumentError, backends.DeviceUnavailable) as error:
        raise Absent(str(error)) from error
