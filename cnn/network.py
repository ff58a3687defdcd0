"""Sequential: layers one after the other, on two flat vectors."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

import backends
from backends import Backend
from backends.memory import Array, Scratch, Shape
from backends.text import did_you_mean
from cnn.data.dataset import as_images, channels_last_advice, looks_channels_last, some_of
from cnn.data.feed import Feed
from cnn.layers import initializers
from cnn.layers.activation import Softmax
from cnn.layers.fusion import Fused, passes
from cnn.layers.layer import Context, Layer, Parameter
from cnn.layers.shape import Reshape
from cnn.support import random
from cnn.support.arguments import flag, shape, shown, whole
from cnn.support.errors import ArgumentError, CheckpointError, ShapeError
from cnn.support.replays import Replays

DTYPES = ("float32", "float64")
DTYPES_ELSEWHERE = {
    **dict.fromkeys(("fp32", "f32", "float", "single", "32"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double", "64"), "float64"),
}
EVALUATION_BATCH = 256


class Sequential(Layer):
    """A network: each layer's output is the next one's input.

    ``net.flat`` holds all parameters in one vector and all gradients in another; each parameter
    starts on a 256-byte boundary. A Sequential inside another is a layer like the rest. Networks
    are not thread-safe: take ``net.copy()`` for another thread. A network can be pickled, and so sent to
    another process: its layers, weights and statistics, which are put on the device of the same name there.
    If that process does not have the device, it is the one that "auto" takes, and a warning says so.
    """

    replayable = True

    def __init__(self, *layers: Layer) -> None:
        for position, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise ArgumentError(f"Sequential: item {position} is {shown(layer)}, expected a layer")
        self.layers = list(layers)

    def build(
        self,
        input_shape: Shape,
        context: Context | None = None,
        *,
        backend: Backend | str = "auto",
        seed: int = 0,
        dtype: str = "float32",
        fuse: bool = True,
    ) -> Shape:
        """Give the layers their places, and the parameters their memory and first values.

        Parameters
        ----------
        input_shape : tuple of int
            One sample's: (C, H, W) or (F,).
        context : Context
            Given by the network that this one is a layer of; leave it out otherwise.
        backend : Backend or str
            The device, or its name.
        seed : int
            Of the first weights; the same on every device.
        dtype : str
            "float32" or "float64".
        fuse : bool
            Compute neighbouring layers in one pass where the kernels can; the results are the same.

        Returns
        -------
        tuple of int
            The shape of one sample's output.

        Raises
        ------
        ShapeError
            Where a layer does not fit its input; the network can then be built on another.
        ArgumentError
            If it is built already, or an argument is out of range.
        """
        if context is None:
            return self._build_root(shape("input_shape", input_shape), backend, seed, dtype, fuse)
        super().build(input_shape, context)
        prefix = f"{context.path}." if context.path else ""
        for index, layer in enumerate(self.layers):
            self.output_shape = layer.build(self.output_shape, replace(context, path=f"{prefix}{index}"))
        self.passes = self._fused = passes(self.layers) if context.fuse else list(self.layers)
        self._replays = Replays(self.backend)
        self.replayable = type(self).replayable and all(step.replayable for step in self.passes)
        self._input: Array = None  # of the latest training forward
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for device arrays, batch last: (*input_shape, N) -> (*output_shape, N).

        A training output stays valid until the next training forward, another until the next call.
        """
        self.require_built()
        self._check("input", x, self.input_shape)
        with self.backend.active():
            x = x.astype(self.dtype, copy=False)
            if training:
                self._input = None  # where a layer fails, there is nothing to go back from
            if self.replayable:
                y = self._replays.run(("forward", training), (x,), lambda: self._forward(x, training))
            else:
                y = self._forward(x, training)
            if training:
                self._input = x
            return y

    def _forward(self, x: Array, training: bool) -> Array:
        for step in self.passes:
            x = step.forward(x, training)
        return x

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        """Write all gradients for the latest training forward; -> the input's, valid until the next call.

        Without ``input_grad`` the layers up to the first with parameters are spared their part.
        """
        self.require_built()
        self._check("gradient", dy, self.output_shape)
        batch = 0 if self._input is None else self._input.shape[-1]
        if dy.shape[-1] != batch:
            raise ShapeError(
                f"the gradient is for a batch of {dy.shape[-1]}, the latest training forward had "
                f"{batch}: call forward(x, training=True) with the same batch first"
            )
        with self.backend.active():
            dy = dy.astype(self.dtype, copy=False)
            if self.replayable:
                given = self._input, dy
                return self._replays.run(
                    ("backward", input_grad), given, lambda: self._backward(dy, input_grad)
                )
            return self._backward(dy, input_grad)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        first_trained = next((i for i, step in enumerate(self.passes) if step.parameters), len(self.passes))
        for index in reversed(range(len(self.passes))):
            if not input_grad and index < first_trained:
                return None
            dy = self.passes[index].backward(dy, input_grad or index > first_trained)
        return dy

    @contextmanager
    def unfused(self) -> Iterator[None]:
        """Inside the block every layer runs by itself, as when they are to be watched one by one."""
        containers = [layer for layer in self.layers if isinstance(layer, Sequential)]
        with ExitStack() as stack:
            for container in containers:
                stack.enter_context(container.unfused())
            self.passes, replayable, self.replayable = list(self.layers), self.replayable, False
            try:
                yield
            finally:
                self.passes, self.replayable = self._fused, replayable
                self._replays.forget()  # the layers remember other arrays now

    def predict(self, images: Any, batch_size: int = EVALUATION_BATCH) -> Any:
        """Probabilities for host images: (N, C, H, W) or (N, H, W) -> (N, classes).

        Bytes are scaled as in training, floats are taken as they are. The output of a network that
        does not end in Softmax goes through one. Raises ShapeError for images of another shape,
        DataError for what are no images.
        """
        images = as_images(images)
        self.check_images(images)
        batch_size = whole("batch_size", batch_size)
        feed = Feed(self.backend, self.dtype, images, np.zeros(len(images), dtype=np.int64), batch_size)
        parts = []
        with self.backend.active():
            for x, _ in feed:
                y = self.forward(x)
                if not self.ends_in_softmax:
                    logits, y = y, self.context.scratch.beside(y, y.shape)
                    self.backend.kernels.softmax(logits, out=y)
                parts.append(np.moveaxis(self.backend.to_host(y), -1, 0))
        return np.concatenate(parts)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters by PyTorch's names: "0.weight", "0.bias", "3.weight", ..."""
        self.require_built()
        return {
            f"{index}.{name}": parameter
            for index, layer in enumerate(self.layers)
            for name, parameter in layer.parameters.items()
        }

    @property
    def statistics(self) -> dict[str, Array]:
        """What a training forward changes besides the parameters, as running means, by PyTorch's names."""
        return {f"{layer.path}.{name}": array for layer in self.walk() for name, array in layer.state.items()}

    @property
    def ends_in_softmax(self) -> bool:
        """Whether the output is probabilities."""
        last = [layer for layer in self.walk() if not isinstance(layer, Reshape)][-1:]
        return any(isinstance(layer, Softmax) for layer in last)

    def cut(self, vector: Any) -> dict[str, Any]:
        """A host vector as long as ``flat``, cut into views by the parameters' names."""
        return {
            name: vector[parameter.place].reshape(parameter.shape)
            for name, parameter in self.parameters.items()
        }

    def join(self, arrays: Mapping[str, Any]) -> Any:
        """A host vector as long as ``flat`` from arrays by the parameters' names, as :meth:`cut` gives."""
        vector = np.zeros(self.flat.shape)
        for name, parameter in self.parameters.items():
            vector[parameter.place] = np.reshape(arrays[name], -1)
        return vector

    def state_dict(self) -> dict[str, Any]:
        """Host copies of the parameters and statistics by name."""
        return {name: self.backend.to_host(array) for name, array in self._kept().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over host arrays by name, cast to the network's dtype; all of them or none.

        Raises CheckpointError, which names the first parameter that is missing, unknown or of another shape.
        """
        self.require_state(state)
        for name, place in self._kept().items():
            self.backend.asarray(_as_array(name, state[name]), out=place)

    def require_state(self, state: Mapping[str, Any]) -> None:
        """Raise CheckpointError unless :meth:`load_state_dict` would take these arrays."""
        kept = self._kept()
        if not isinstance(state, Mapping):
            raise CheckpointError(f"the weights are {shown(state)}, expected arrays by name")
        arrays = {name: _as_array(name, value) for name, value in state.items()}
        for name, place in kept.items():
            if name not in arrays:
                raise CheckpointError(
                    f"the weights lack {name}, which this network has with shape {place.shape}; "
                    f"they have {some_of(arrays) or 'no names'}"
                )
            if arrays[name].shape != place.shape:
                turned = place.ndim == 2 and arrays[name].shape == place.shape[::-1]
                hint = ": it is transposed, as TensorFlow and Keras keep it" if turned else ""
                raise CheckpointError(
                    f"the weights have {name} with shape {arrays[name].shape}, "
                    f"this network has it with shape {place.shape}{hint}"
                )
            if arrays[name].dtype.kind not in "fiu":
                raise CheckpointError(
                    f"the weights have {name} as {arrays[name].dtype}, expected real numbers"
                )
        for name in arrays:
            if name not in kept:
                raise CheckpointError(f"the weights have {name}, which this network does not have")

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the parameters and statistics by name."""
        return {name: array.shape for name, array in self._kept().items()}

    def _kept(self) -> dict[str, Array]:
        """What files keep of the network."""
        return {name: parameter.value for name, parameter in self.parameters.items()} | self.statistics

    def save(self, path: Any) -> None:
        """Write the weights and the architecture to a safetensors file, whole or not at all."""
        from cnn.saving.weights import save

        save(self, path)

    def copy(self) -> "Sequential":
        """The same network with buffers of its own: same device, same weights."""
        self.require_built()
        if not self.is_root:
            self.require_alone()
        twin = self.fresh()
        twin.build(self.input_shape, backend=self.backend, dtype=self.dtype, fuse=self.context.fuse)
        with self.backend.active():
            twin.flat.value[...] = self.flat.value
            for name, array in twin.statistics.items():
                array[...] = self.statistics[name]
        return twin

    def fresh(self) -> "Sequential":
        """The same layers, not yet built."""
        twin = type(self).__new__(type(self))  # a class of one's own may take other arguments
        vars(twin).update(self._unbuilt if self.built else vars(self))
        twin.layers = [layer.fresh() for layer in self.layers]
        return twin

    def unbuild(self) -> None:
        """Give up the place in a network, for all layers inside too."""
        super().unbuild()
        for layer in self.layers:
            layer.unbuild()

    def __deepcopy__(self, memo: Any) -> "Sequential":
        return self.copy() if self.built else self.fresh()

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self.built or not self.is_root:
            return super().__reduce_ex__(protocol)
        place = self.input_shape, self.backend, self.dtype, self.context.fuse
        return _rebuilt, (self.fresh(), *place, self.state_dict())

    def summary(self) -> None:
        """Print layer, output shape, parameters, multiply-adds and memory."""
        from cnn.inspection.summary import show

        show(self)

    def walk(self) -> Iterator[Layer]:
        """All layers, those inside containers included."""
        for layer in self.layers:
            yield from layer.walk()

    def walk_passes(self) -> Iterator[tuple[Layer, ...]]:
        """All layers, those that run in one pass together; those inside containers included."""
        for step in self.passes:
            if isinstance(step, Sequential):
                yield from step.walk_passes()
            else:
                yield step.layers if isinstance(step, Fused) else (step,)

    @property
    def is_root(self) -> bool:
        """Whether the network is built and no layer of another."""
        return self.built and "flat" in vars(self)

    def require_built(self) -> None:
        """Raise where the network has not been built."""
        if not self.built:
            raise ArgumentError("the network is not built yet: call net.build(input_shape) first")

    def check_images(self, images: Any) -> None:
        """Raise ShapeError unless host images (N, C, H, W) are what the network was built for."""
        self.require_built()
        if images.shape[1:] != self.input_shape:
            expected = f"(N, {', '.join(map(str, self.input_shape))})"
            last = looks_channels_last(images.shape)
            advice = f": {channels_last_advice(images.shape)}" if last else ""
            raise ShapeError(f"the images are {images.shape}, the network was built for {expected}{advice}")

    @property
    def config(self) -> dict[str, Any]:
        """The layers."""
        return {"layers": self.layers}

    def _build_root(
        self, input_shape: Shape, backend: Backend | str, seed: int, dtype: str, fuse: bool
    ) -> Shape:
        name = getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)  # np.dtype's, np.float32's
        require_dtype(name)
        whole("seed", seed, least=0)
        fuse = flag("fuse", fuse)
        if isinstance(backend, str):
            backend = backends.get(backend)
        if not isinstance(backend, Backend):
            raise ArgumentError(f'backend is {shown(backend)}, expected a device such as backends.get("cpu")')
        for layer in (self, *self.walk()):
            layer.require_unbuilt()
        try:
            with backend.active():
                self.build(input_shape, Context(backend, name, Scratch(backend, name), fuse))
                self._allocate(seed)
        except BaseException:
            self.unbuild()
            raise
        return self.output_shape

    def _allocate(self, seed: int) -> None:
        """Lay all parameters side by side in one vector, all gradients in another."""
        boundary = 256 // self.backend.xp.dtype(self.dtype).itemsize
        starts, size = [], 0
        for parameter in self.parameters.values():
            starts.append(size)
            size += -(-parameter.size // boundary) * boundary
        self.flat = Parameter(
            (size,),
            name="all",
            value=self.backend.zeros(size, self.dtype),
            grad=self.backend.zeros(size, self.dtype),
        )
        generator = random.generator(seed, random.WEIGHTS)
        for start, (name, parameter) in zip(starts, self.parameters.items(), strict=True):
            parameter.name = name
            parameter.place = place = slice(start, start + parameter.size)
            parameter.value = self.flat.value[place].reshape(parameter.shape)
            parameter.grad = self.flat.grad[place].reshape(parameter.shape)
            first = initializers.get(parameter.initializer)(generator, parameter.shape, parameter.fan_in)
            self.backend.asarray(first, out=parameter.value)

    def _check(self, name: str, array: Array, sample: Shape) -> None:
        if not self.backend.owns(array):
            raise ArgumentError(
                f"the {name} is a {type(array).__module__}.{type(array).__name__}, the network is on "
                f"{self.backend.name}: bring it there with net.backend.asarray(...)"
            )
        if array.shape[:-1] != sample or array.shape[-1:] == (0,):
            expected = f"({', '.join(map(str, sample))}, N)"
            raise ShapeError(f"the {name} is {array.shape}, the network expects {expected}, batch last")


def _rebuilt(
    network: Sequential, input_shape: Shape, backend: Backend, dtype: str, fuse: bool, state: dict[str, Any]
) -> Sequential:
    """A network from what it was pickled as."""
    network.build(input_shape, backend=backend, dtype=dtype, fuse=fuse)
    network.load_state_dict(state)
    return network


def _as_array(name: str, value: Any) -> Any:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the weights have {name} as {shown(value)}, expected an array") from error


def require_dtype(name: Any) -> None:
    """Raise ArgumentError unless a network can compute in the dtype of this name."""
    if not isinstance(name, str) or name not in DTYPES:
        meant = did_you_mean(name, DTYPES, DTYPES_ELSEWHERE)
        raise ArgumentError(f"dtype is {shown(name)}, expected {' or '.join(DTYPES)}{meant}")
