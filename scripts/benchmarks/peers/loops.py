"""The notebook's own loops, as scripts/reproduce_notebook.py has them: an image at a time, in float64."""

from itertools import cycle
from typing import Any

import numpy as np

from peers.peer import Peer
from peers.task import RATE, Task
from scripts import reproduce_notebook as notebook


class Loops(Peer):
    """The notebook's network and its step, faults and all: it updates inside backward, without momentum."""

    def __init__(self, task: Task) -> None:
        filters, hidden, last = (task.weights[f"{index}.weight"] for index in (0, 4, 6))
        random = np.random.default_rng(0)
        self._layers: list[Any] = [
            notebook.Convolution(random, len(filters), filters.shape[-1]),
            notebook.Activation(lambda x: np.maximum(x, 0), lambda x: x > 0),
            notebook.MaxPool(),
            notebook.Reshape(),
            notebook.Dense(random, *reversed(hidden.shape)),
            notebook.Activation(notebook.tanh, lambda x: 1 - notebook.tanh(x) ** 2),
            notebook.Dense(random, *reversed(last.shape)),
            notebook.Softmax(),
        ]
        self._layers[0].kernels[:], self._layers[0].biases[:] = filters, task.weights["0.bias"]
        for index in (4, 6):
            self._layers[index].weights[:] = task.weights[f"{index}.weight"]
            self._layers[index].bias[:] = task.weights[f"{index}.bias"][:, None]
        self._task = task
        self._batches = cycle(task.batches)

    def step(self) -> float:
        (image,) = next(self._batches)
        target = np.eye(2)[self._task.labels[image]][:, None]
        y = self._forward(self._task.images[image] / 255)
        loss = notebook.log_loss(target, y)
        dy = notebook.log_loss_prime(target, y)
        for layer in reversed(self._layers):
            dy = layer.backward(dy, RATE)
        return loss

    def infer(self) -> Any:
        (x,) = self._task.x
        return self._forward(x)

    def probabilities(self) -> Any:
        return self.infer().T  # (classes, 1) -> (1, classes)

    def _forward(self, x: Any) -> Any:
        """(1, 28, 28) -> a column (classes, 1)."""
        for layer in self._layers:
            x = layer.forward(x)
        return x
