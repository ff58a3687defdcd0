"""ONNX's optimizers through ours: one step on tensors of any shapes."""

import numpy as np

from backends import Backend
from backends.memory import Shape
from cnn.layers import Context, Layer
from cnn.training.optimizers import SGD, Adam, Optimizer
from conformance.node import Node, NotOurs
from conformance.tensors import Tensor, Tensors, built

DAMPENED = "its gradient has a factor beta, SGD's has none"
LATER_STEP = "its step is a later one, at which our Adam adds epsilon elsewhere"
POST_DECAY = "it decays the weights after the step, AdamW does before"


def momentum(backend: Backend, node: Node, rate: Tensor, step: Tensor, *tensors: Tensor) -> Tensors:
    """Momentum: SGD. The tensors are values, gradients and velocities; -> values, velocities."""
    if step > 0 and node["beta"] != 1:  # the first step leaves it out
        raise NotOurs(DAMPENED)
    nesterov = node["mode"] == "nesterov"
    sgd = SGD(float(rate), node["alpha"], nesterov, node["norm_coefficient"])
    values, gradients, velocity = _cut(tensors, 3)
    update = _Update(backend, sgd, values)
    update.put("velocity", velocity)
    return update.step(values, gradients, rate)


def adam(backend: Backend, node: Node, rate: Tensor, step: Tensor, *tensors: Tensor) -> Tensors:
    """Adam at step 0, which ONNX does not correct: ours after so many that the betas' powers are 0.

    The tensors are values, gradients, means and mean squares; -> all but the gradients.
    """
    if step > 0:
        raise NotOurs(LATER_STEP)
    if node["norm_coefficient_post"]:
        raise NotOurs(POST_DECAY)
    betas = node["alpha"], node["beta"]
    optimizer = Adam(float(rate), betas, node["epsilon"], node["norm_coefficient"])
    values, gradients, mean, square = _cut(tensors, 4)
    update = _Update(backend, optimizer, values)
    update.put("mean", mean)
    update.put("square", square)
    optimizer.state["powers"].fill(0)
    return update.step(values, gradients, rate)


class _Holder(Layer):
    """Parameters of any shapes, for an optimizer to update."""

    def __init__(self, shapes: list[Shape]) -> None:
        self.shapes = shapes

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        for place, shape in enumerate(self.shapes):
            self.parameter(str(place), shape, "zeros")
        return self.output_shape


class _Update:
    """A step of an optimizer, whose state lies as the parameters do."""

    def __init__(self, backend: Backend, optimizer: Optimizer, values: Tensors) -> None:
        self.backend, self.optimizer = backend, optimizer
        shapes = [value.shape for value in values]
        self.network = built(backend, _Holder(shapes), np.zeros((1, 1), values[0].dtype), values)
        optimizer.build(self.network)

    def put(self, state: str, tensors: Tensors) -> None:
        """Set one of the states."""
        self._load(tensors)
        self.optimizer.state[state][...] = self.network.flat.value

    def step(self, values: Tensors, gradients: Tensors, rate: Tensor) -> Tensors:
        """The values after the step, then each state."""
        self._load(values)
        for parameter, gradient in zip(self.network.parameters.values(), gradients, strict=True):
            self.backend.asarray(gradient, out=parameter.grad)
        self.optimizer.step(self.backend.asarray(rate.reshape(1).astype(self.network.dtype)))
        results = list(self.network.state_dict().values())
        for name in self.optimizer.state_names:
            self.network.flat.value[...] = self.optimizer.state[name]
            results += self.network.state_dict().values()
        return results

    def _load(self, tensors: Tensors) -> None:
        self.network.load_state_dict(dict(zip(self.network.parameters, tensors, strict=True)))


def _cut(tensors: tuple[Tensor, ...], parts: int) -> list[Tensors]:
    """The tensors in so many lists of one length."""
    length = len(tensors) // parts
    return [list(tensors[start : start + length]) for start in range(0, len(tensors), length)]
