"""PyTorch, eager and through torch.compile."""

from collections.abc import Callable, Iterable, Mapping
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
        setting = task.setting
        if setting.threads is not None:
            torch.set_num_threads(setting.threads)
        torch.backends.cuda.matmul.allow_tf32 = setting.tf32
        torch.backends.cudnn.allow_tf32 = setting.tf32
        self._device = setting.device
        weights = {name: torch.tensor(value) for name, value in task.weights.items()}
        self.network = make_network(setting.network.make().layers, weights).to(self._device)
        self._optimizer = torch.optim.SGD(self.network.parameters(), RATE, momentum=MOMENTUM)
        self._images, self._labels = self._on_device(task.images), self._on_device(task.labels)
        self._batches = cycle(self._on_device(task.batches))
        self._x = self._on_device(task.x)
        self._loss: Callable[..., Tensor] = self._mean_loss
        self._forward: Callable[..., Tensor] = self.network

    def step(self) -> Tensor:
        loss = self._loss(*self._gather(next(self._batches)))
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _on_device(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _gather(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The images (N, C, H, W) as floats from 0 to 1, and the labels (N,)."""
        return self._images[batch].float().div_(255), self._labels[batch]

    def _mean_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Of images (N, C, H, W) and labels (N,)."""
        return nn.functional.cross_entropy(self.network(x), labels)

    def infer(self) -> Tensor:
        with torch.inference_mode():
            return self._forward(self._x)

    def probabilities(self) -> Any:
        return softmax(self.to_host(self.infer()))

    def synchronize(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def to_host(self, array: Any) -> Any:
        return array.cpu().numpy()

    def gradients(self) -> dict[str, Any]:
        named = self.network.named_parameters()
        return {name: self.to_host(parameter.grad).copy() for name, parameter in named}

    def weights(self) -> dict[str, Any]:
        return {name: self.to_host(value).copy() for name, value in self.network.state_dict().items()}


class Compiled(Eager):
    """The same; the network and the loss are compiled as one, for this batch size."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.compiler.reset()  # it would go back to eager after a few batch sizes
        self._loss = compiled(self._mean_loss)
        self._forward = compiled(self.network)


class CompiledStep(Eager):
    """The same for a GPU; a whole step is compiled as one, in the mode "max-autotune".

    Its gradient and its update are functions of the weights, since ``backward()`` would cut the step in two.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.compiler.reset()
        self.network.requires_grad_(False)
        self._velocity = {name: torch.zeros_like(value) for name, value in self.network.named_parameters()}
        # else they would be copied into the CUDA graph's own memory in every step
        for tensor in (self._images, self._labels, self._x, *self._velocity.values()):
            torch._dynamo.mark_static_address(tensor)
        self._train = compiled(self._update, mode="max-autotune")
        self._forward = compiled(self.network, mode="max-autotune")

    def step(self) -> Tensor:
        return self._train(next(self._batches))

    def _update(self, batch: Tensor) -> Tensor:
        weights = dict(self.network.named_parameters())
        gradients, loss = torch.func.grad_and_value(self._loss_of)(weights, *self._gather(batch))
        for name, weight in weights.items():
            velocity = self._velocity[name].mul_(MOMENTUM).add_(gradients[name])
            weight.sub_(velocity, alpha=RATE)
        return loss

    def _loss_of(self, weights: Mapping[str, Tensor], x: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy with these weights."""
        y = torch.func.functional_call(self.network, dict(weights), (x,))
        return nn.functional.cross_entropy(y, labels)

    def gradients(self) -> dict[str, Any]:
        return {}  # they are a matter of the compiled step


def require(device: str) -> None:
    """Raise Absent where PyTorch does not see the device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise Absent(f"PyTorch {torch.__version__} finds no GPU: install one that was built for CUDA")


def compiled(function: Callable[..., Tensor], mode: str = "default") -> Callable[..., Tensor]:
    """``function`` through torch.compile; calling it raises Absent where there is no compiler for it."""
    # with this reordering PyTorch 2.13 reads the gradient of max pooling before it is there
    options = {**torch._inductor.list_mode_options(mode), "reorder_for_peak_memory": False}
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
