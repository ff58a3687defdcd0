"""PyTorch, eager and through torch.compile."""

from collections.abc import Callable, Iterable
from itertools import cycle
from typing import Any

from cnn.layers import Conv2D, Dense, Flatten, MaxPool2D, ReLU, Softmax, Tanh
from cnn.layers.layer import Layer
from peers.peer import Absent, Peer, softmax
from peers.task import MOMENTUM, RATE, Task

try:
    import torch
except ImportError as error:
    raise Absent("PyTorch is not installed: pip install torch") from error

from torch import Tensor, nn


class Eager(Peer):
    """The network as ``nn.Sequential`` of PyTorch's own layers, trained on its logits; batch first."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(task.setting.threads)
        weights = {name: torch.tensor(value) for name, value in task.weights.items()}
        self.network = make_network(task.setting.network.make().layers, weights)
        self._optimizer = torch.optim.SGD(self.network.parameters(), RATE, momentum=MOMENTUM)
        self._images, self._labels = torch.from_numpy(task.images), torch.from_numpy(task.labels)
        self._batches = cycle(torch.from_numpy(task.batches))
        self._x = torch.from_numpy(task.x)
        self._loss: Callable[..., Tensor] = self._mean_loss
        self._forward: Callable[..., Tensor] = self.network

    def step(self) -> Tensor:
        batch = next(self._batches)
        x = self._images[batch].float().div_(255)
        loss = self._loss(x, self._labels[batch])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _mean_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Of images (N, C, H, W) and labels (N,)."""
        return nn.functional.cross_entropy(self.network(x), labels)

    def infer(self) -> Tensor:
        with torch.inference_mode():
            return self._forward(self._x)

    def probabilities(self) -> Any:
        return softmax(self.infer().numpy())

    def gradients(self) -> dict[str, Any]:
        return {name: parameter.grad.numpy().copy() for name, parameter in self.network.named_parameters()}

    def weights(self) -> dict[str, Any]:
        return {name: value.numpy().copy() for name, value in self.network.state_dict().items()}


class Compiled(Eager):
    """The same; the network and the loss are compiled as one, for this batch size."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.compiler.reset()  # it would go back to eager after a few batch sizes
        self._loss = compiled(self._mean_loss)
        self._forward = compiled(self.network)


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` through torch.compile; calling it raises Absent where there is no C++ compiler for it."""
    # with this reordering PyTorch 2.13 reads the gradient of max pooling before it is there
    options: dict[str, Any] = {"reorder_for_peak_memory": False}
    fast = torch.compile(function, dynamic=False, fullgraph=True, options=options)

    def call(*arguments: Tensor) -> Tensor:
        try:
            return fast(*arguments)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise Absent(str(error).splitlines()[0]) from error

    return call


def make_network(layers: Iterable[Layer], weights: dict[str, Tensor]) -> nn.Sequential:
    """The same layers with these weights; a Softmax at the end is left to the loss."""
    modules = [
        make_module(layer, weights.get(f"{index}.weight"), weights.get(f"{index}.bias"))
        for index, layer in enumerate(layers)
        if not isinstance(layer, Softmax)
    ]
    network = nn.Sequential(*modules)
    network.load_state_dict(weights)
    return network


def make_module(layer: Layer, weight: Any, bias: Any) -> nn.Module:
    """The module for ``layer``, for parameters of these shapes."""
    match layer:
        case Conv2D():
            O, C, *_ = weight.shape
            arguments = C, O, layer.kernel_size, layer.stride, layer.padding
            return UntiedConv2d(*arguments, bias=bias) if layer.untied_bias else nn.Conv2d(*arguments)
        case Dense():
            return nn.Linear(*reversed(weight.shape))
        case MaxPool2D():
            return nn.MaxPool2d(layer.kernel_size, layer.stride)
        case ReLU():
            return nn.ReLU()
        case Tanh():
            return nn.Tanh()
        case Flatten():
            return nn.Flatten()
    raise NotImplementedError(f"PyTorch's module for {layer!r}")


class UntiedConv2d(nn.Conv2d):
    """A convolution with a bias for each output position, (O, OH, OW)."""

    def __init__(self, *arguments: Any, bias: Tensor) -> None:
        super().__init__(*arguments, bias=False)
        self.bias = nn.Parameter(torch.zeros_like(bias))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, OH, OW)."""
        return self._conv_forward(x, self.weight, None) + self.bias
