"""PyTorch, eager and through torch.compile."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

from cnn.layers import (
    GELU,
    BatchNorm2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    PadChannels,
    ReLU,
    Rescale,
    Residual,
    Sequential,
    Softmax,
    Tanh,
)
from peers.peer import Absent, Peer, softmax
from peers.task import MOMENTUM, RATE, Task, Training

try:
    import torch
except ImportError as error:
    raise Absent("PyTorch is not installed: pip install torch") from error

from torch import Tensor, nn

MODE_ON_GPU = "max-autotune"  # of torch.compile


class Eager(Peer):
    """The network as ``nn.Sequential`` of PyTorch's own layers, trained on its logits; batch first."""

    layout = torch.contiguous_format

    def __init__(self, task: Task) -> None:
        setting = task.setting
        if setting.threads is not None:
            torch.set_num_threads(setting.threads)
        torch.backends.cuda.matmul.allow_tf32 = setting.tf32
        torch.backends.cudnn.allow_tf32 = setting.tf32
        self._device, self._dtype = setting.device, setting.dtype
        weights = {name: torch.tensor(value) for name, value in task.weights.items()}
        self.network = make_network(task.network.layers, weights)
        self.network.to(self._device, memory_format=self.layout)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not task.network.parameters[name].frozen)
        self._training = setting.training
        self._optimizer = make_optimizer(setting.training, list(self._trained().values()), self.layout)
        self._images, self._x = (
            self._on_device(images).contiguous(memory_format=self.layout) for images in (task.images, task.x)
        )
        self._labels, self._batches = self._on_device(task.labels), cycle(self._on_device(task.batches))
        self._loss = self._in_dtype(self._mean_loss)
        self._forward = self._in_dtype(self.network)

    def step(self) -> Tensor:
        self._set_training(True)
        loss = self._loss(*self._gather(next(self._batches)))
        self._optimizer.zero_grad()
        loss.backward()
        if self._training.clip:
            nn.utils.clip_grad_norm_(self._trained().values(), self._training.clip)
        self._optimizer.step()
        return loss.detach()

    def _in_dtype(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """``function`` with autocast if the setting's dtype is not that of the parameters."""
        return function if self._dtype == "float32" else autocast(function, self._device)

    def _set_training(self, training: bool) -> None:
        """Let normalizations use the batch, or their statistics."""
        if self.network.training != training:
            self.network.train(training)

    def _trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are not frozen."""
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}

    def _on_device(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _gather(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """The images (N, C, H, W) as floats from 0 to 1, and the labels (N,)."""
        x = self._images[batch].float().div_(255)
        return x.contiguous(memory_format=self.layout), self._labels[batch]

    def _mean_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of images (N, C, H, W) with labels (N,)."""
        smoothing = self._training.label_smoothing
        return nn.functional.cross_entropy(self.network(x), labels, label_smoothing=smoothing)

    def infer(self) -> Tensor:
        self._set_training(False)
        with torch.inference_mode():
            return self._forward(self._x)

    def probabilities(self) -> Any:
        return softmax(self.to_host(self.infer().float()))

    def synchronize(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def to_host(self, array: Any) -> Any:
        return array.cpu().numpy()

    def gradients(self) -> dict[str, Any]:
        trained = self._trained().items()
        return {name: self.to_host(parameter.grad).copy() for name, parameter in trained}

    def weights(self) -> dict[str, Any]:
        return {name: self.to_host(value).copy() for name, value in self.network.state_dict().items()}


class ChannelsLast(Eager):
    """The same in the memory format in which the channels of a pixel lie next to each other."""

    layout = torch.channels_last


class Compiled(Eager):
    """The same; the network and the loss are compiled as one, for this batch size."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.compiler.reset()  # it would go back to eager after a few batch sizes
        mode = "default" if task.setting.device == "cpu" else MODE_ON_GPU
        self._loss = compiled(self._loss, mode)
        self._forward = compiled(self._forward, mode)


class CompiledStep(Eager):
    """The same for a GPU; a whole step is compiled as one, in the mode "max-autotune".

    Its gradient and its update are functions of the weights, since ``backward()`` would cut the step in two.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch.compiler.reset()
        self._velocity = {name: torch.zeros_like(value) for name, value in self._trained().items()}
        self.network.requires_grad_(False)
        # else they would be copied into the CUDA graph's own memory in every step
        for tensor in (self._images, self._labels, self._x, *self._velocity.values()):
            torch._dynamo.mark_static_address(tensor)
        self._train = compiled(self._update, MODE_ON_GPU)
        self._forward = compiled(self._forward, MODE_ON_GPU)

    def step(self) -> Tensor:
        return self._train(next(self._batches))

    def _update(self, batch: Tensor) -> Tensor:
        weights = {name: self.network.get_parameter(name) for name in self._velocity}
        loss_of = self._in_dtype(self._loss_of)
        gradients, loss = torch.func.grad_and_value(loss_of)(weights, *self._gather(batch))
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


def compiled_on_gpu(task: Task) -> Eager:
    """The whole step compiled as one; without its update if a normalization changes its statistics in it.

    ``torch.func`` cannot take the gradient of a function that changes them.
    """
    return Compiled(task) if task.network.statistics else CompiledStep(task)


class Muon:
    """``torch.optim.Muon`` for convolutions and dense weights, ``torch.optim.SGD`` for the other parameters.

    PyTorch's Muon takes matrices only, so a convolution's weight is viewed as (O, C * KH * KW), with the
    columns in the order of the memory format.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], training: Training, layout: torch.memory_format
    ) -> None:
        self._layout, self._unit_rows = layout, training.unit_rows
        weights = [each for each in parameters if each.ndim > 1]
        self._weights = weights[:-1] if training.hidden_only else weights
        self._matrices = [nn.Parameter(self._as_matrix(each.detach())) for each in self._weights]
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            if weight.data_ptr() != matrix.data_ptr():
                raise ValueError(
                    f"a weight of shape {tuple(weight.shape)} was copied, so it would not be trained"
                )
        self._muon = torch.optim.Muon(
            self._matrices,
            RATE,
            0.0 if training.unit_rows else training.weight_decay,
            training.momentum,
            training.nesterov,
            ns_steps=training.steps,
        )
        others = [each for each in parameters if all(each is not weight for weight in self._weights)]
        self._sgd = make_sgd(others, training) if others else None

    def _as_matrix(self, tensor: Tensor) -> Tensor:
        """(O, ...) -> (O, columns)."""
        if tensor.ndim == 4 and self._layout is torch.channels_last:
            tensor = tensor.permute(0, 2, 3, 1)
        return tensor.flatten(1)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for weight in self._weights:
            weight.grad = None
        if self._sgd:
            self._sgd.zero_grad()

    def step(self) -> None:
        """Update all parameters."""
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = self._as_matrix(weight.grad)
            if self._unit_rows:
                matrix.detach().mul_(len(matrix) ** 0.5 / matrix.detach().norm())
        self._muon.step()
        if self._sgd:
            self._sgd.step()


def make_optimizer(
    training: Training, parameters: Sequence[nn.Parameter], layout: torch.memory_format
) -> torch.optim.Optimizer | Muon:
    """PyTorch's optimizer for ``training``; NotImplementedError if there is none here."""
    match training.optimizer:
        case "sgd":
            return make_sgd(parameters, training)
        case "adam":
            return torch.optim.Adam(parameters, RATE, training.betas, weight_decay=training.weight_decay)
        case "adamw":
            return torch.optim.AdamW(parameters, RATE, training.betas, weight_decay=training.weight_decay)
        case "muon":
            return Muon(parameters, training, layout)
    raise NotImplementedError(f"this script has no optimizer of PyTorch for {training.optimizer}")


def make_sgd(parameters: Sequence[nn.Parameter], training: Training) -> torch.optim.SGD:
    """PyTorch's SGD for ``training``."""
    decay, nesterov = training.weight_decay, training.nesterov
    return torch.optim.SGD(parameters, RATE, training.momentum, weight_decay=decay, nesterov=nesterov)


def require(device: str) -> None:
    """Raise Absent where PyTorch does not see the device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise Absent(f"PyTorch {torch.__version__} finds no GPU: install one that was built for CUDA")


def autocast(function: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """``function`` with products and activations in bfloat16, of parameters in float32."""

    def call(*arguments: Any) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return function(*arguments)

    return call


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
    """The same built layers with these weights; a Softmax at the end is left to the loss."""
    network = nn.Sequential(*(make_module(layer) for layer in layers if not isinstance(layer, Softmax)))
    network.load_state_dict(weights)
    return network


def make_module(layer: Layer) -> nn.Module:
    """The module for ``layer``; NotImplementedError if there is none here."""
    match layer:
        case Conv2D():
            arguments = (
                layer.input_shape[0],
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
            )
            if layer.untied_bias:
                return UntiedConv2d(*arguments, bias_shape=layer.bias_shape)
            return nn.Conv2d(*arguments, bias=layer.bias)
        case Dense():
            return nn.Linear(*layer.input_shape, *layer.output_shape, bias=layer.bias)
        case BatchNorm2D():
            return make_normalization(layer)
        case GlobalMaxPool2D():
            return nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
        case MaxPool2D(kernel_size=(1, 1)):
            return Thinned(*layer.stride)
        case MaxPool2D():
            return nn.MaxPool2d(layer.kernel_size, layer.stride)
        case GlobalAvgPool2D():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case ReLU():
            return nn.ReLU()
        case GELU():
            return nn.GELU(layer.approximate)
        case Tanh():
            return nn.Tanh()
        case Dropout():
            return nn.Dropout(layer.p)
        case Flatten():
            return nn.Flatten()
        case PadChannels():
            missing = layer.channels - layer.input_shape[0]
            return nn.ZeroPad3d((0, 0, 0, 0, missing // 2, missing - missing // 2))
        case Rescale():
            return Scaled(layer.factor)
        case Residual():
            inside = map(make_module, layer.layers)
            return Shortcut(*inside, shortcut=make_module(layer.branches[1]))
        case Sequential():
            return nn.Sequential(*map(make_module, layer.layers))
    raise NotImplementedError(f"this script has no module of PyTorch for {layer!r}")


def make_normalization(layer: BatchNorm2D) -> nn.Module:
    """The module for ``layer``; without a scale its weight stays 1 and is in no file."""
    channels = layer.input_shape[0]
    module = nn.BatchNorm2d(channels, layer.eps, layer.momentum)
    if not layer.scale:
        del module.weight
        module.register_buffer("weight", torch.ones(channels), persistent=False)
    return module


class UntiedConv2d(nn.Conv2d):
    """A convolution with a bias for each output position, (O, OH, OW)."""

    def __init__(self, *arguments: Any, bias_shape: tuple[int, ...]) -> None:
        super().__init__(*arguments, bias=False)
        self.bias = nn.Parameter(torch.zeros(bias_shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, O, OH, OW)."""
        return self._conv_forward(x, self.weight, None) + self.bias


class Thinned(nn.Module):
    """Every so many rows and columns."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self._rows, self._columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, OH, OW)."""
        return x[:, :, :: self._rows, :: self._columns]


class Scaled(nn.Module):
    """All numbers times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return x * self._factor


class Shortcut(nn.Sequential):
    """Modules whose output is added to that of ``shortcut``."""

    def __init__(self, *modules: nn.Module, shortcut: nn.Module) -> None:
        super().__init__(*modules)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> that of both outputs."""
        y = x
        for name, module in self.named_children():
            if name != "shortcut":
                y = module(y)
        return y + self.shortcut(x)
