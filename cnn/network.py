"""A network: what belongs to the root of a tree of layers, such as its device and its flat vectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

import backends
from backends import Backend, graph
from backends.arena import Arena
from backends.interoperability import on_host
from backends.memory import Array, Shape
from cnn.data.augmentation import views
from cnn.data.checked import as_class_names, as_images, channels_last_advice, looks_channels_last
from cnn.data.feed import Feed
from cnn.data.inference import Inference, answers, with_fitting_batches
from cnn.data.preprocessing import Preprocessing
from cnn.layers import initializers
from cnn.layers.description import describe
from cnn.layers.draws import Draws
from cnn.layers.freezing import Freezable
from cnn.layers.layer import Context, Parameter
from cnn.layers.planning import inference_bytes, training_bytes
from cnn.support import random
from cnn.support.arguments import flag, instance, shape, shown, whole
from cnn.support.dtypes import dtype_on, require_dtype
from cnn.support.errors import ArgumentError, CheckpointError, OutOfMemory, ShapeError, out_of_memory
from cnn.support.files import write_whole
from cnn.support.tensors import as_array, require_weights, serialized

EVALUATION_BATCH = 256
FILE_VERSION = 1

Result = TypeVar("Result")


class Network(Freezable):
    """A complete network: layers in sequence. It is exported as ``cnn.Sequential``.

    ``net.flat`` holds all parameters in one vector and all gradients in another; each parameter starts on a
    256-byte boundary. ``net.state`` names every array that a training step changes. Inside another container
    it is a layer like the others.

    In a mixed-precision network, ``net.dtype`` is that of activations and of the weights in products; the
    vectors, the statistics and the output are ``net.master_dtype``, float32.

    Networks are not thread-safe: take ``net.copy()`` for another thread. A network can be pickled, and so
    sent to another process: its layers, weights and statistics, which are put on the device of the same
    name. If that process does not have the device, "auto" chooses one, and a warning says so. On a CPU, a
    mixed-precision network then becomes one in float32.
    """

    is_root = False
    _preprocessing: Preprocessing | None = None
    _class_names: tuple[str, ...] | None = None

    @property
    def kind(self) -> str:
        return "Sequential" if type(self) is Network else super().kind

    def build(
        self,
        input_shape: Shape,
        context: Context | None = None,
        *,
        backend: Backend | str = "auto",
        seed: int = 0,
        dtype: str = "float32",
        fuse: bool = True,
        winograd: bool = True,
    ) -> Shape:
        """Give the layers their places, and the parameters their memory and initial values.

        Parameters
        ----------
        input_shape : tuple of int
            The shape of one sample: (C, H, W) or (F,).
        context : Context
            Given by the container that this network is a layer of; leave it out otherwise.
        backend : Backend or str
            The device, or its name.
        seed : int
            Seed of the initial weights, which are the same on every device.
        dtype : str
            "float32" or "float64"; on CUDA GPUs also "bfloat16" or "float16". These store activations and the
            weights of products in 16 bits; sums, parameters, gradients, statistics and the output are
            float32. "float16" needs :class:`cnn.LossScaling`, which ``fit`` adds.
        fuse : bool
            Compute neighbouring layers in one pass if they can be; the results differ only by rounding.
        winograd : bool
            Let the CPU's kernels compute wide 3x3 convolutions in float32 by Winograd's algorithm, which is
            faster but rounds more. Small batches are computed directly, so the prediction for one image may
            differ in its last bits from that for the same image in a batch.

        Returns
        -------
        tuple of int
            The shape of the output for one sample.

        Raises
        ------
        ShapeError
            If a layer does not fit its input; the network can then be built on another input shape.
        ArgumentError
            If the network is built already, an argument is out of range, or the device does not compute in
            ``dtype``.
        """
        if context is not None:
            return super().build(input_shape, context)
        return self._build_root(shape("input_shape", input_shape), backend, seed, dtype, fuse, winograd)

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for device arrays, batch last: (*input_shape, N) -> (*output_shape, N).

        A training output is valid until the next training forward, an inference output until the next call.
        """
        if not self.is_root:
            self.require_built()
            return super().forward(x, training)
        self._check("input", x, self.input_shape)
        with self.backend.active():
            arena, batch = self.context.arena, x.shape[-1]
            if training:
                self._batch = 0  # if a layer raises an error, backward must not be called
                arena.clear(x)
            size = training_bytes(self, batch) if training else inference_bytes(self, batch)
            arena.reserve(size, x)
            self.round_weights()
            given = x.astype(self.dtype, copy=False)
            y = super().forward(given, training)
            if training:
                arena.keep(y)  # also after the backward pass
                self._batch, self._given, self._has_kept = batch, given, True
            return self.output_of(y, training)

    def round_weights(self) -> None:
        """Round the weights to the 16-bit operands of products; does nothing in float32 and float64."""
        if self.dtype != self.master_dtype:
            self.backend.kernels.copy(self._flat.value, self._flat.operand)

    def output_of(self, y: Array, training: bool) -> Array:
        """The network's output for that of the last layer."""
        return self._in(self.master_dtype, y, f"output in {'training' if training else 'inference'}")

    def output_gradient_of(self, dy: Array) -> Array:
        """The gradient that the last layer gets for that of the network's output."""
        return self._in(self.dtype, dy.astype(self.master_dtype, copy=False), "gradient of the output")

    def _in(self, dtype: str, array: Array, name: str) -> Array:
        """``array`` itself, or in mixed precision a copy of another dtype in the buffer ``name``."""
        if self.dtype == self.master_dtype:
            return array
        copy = self.buffer(name, array.shape, dtype)
        self.backend.kernels.copy(array, copy)
        return copy

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        """Write all gradients for the latest training forward; -> the input's, valid until the next call.

        Without ``input_grad``, the layers before the first one with parameters skip their part. Gradients
        take the place of what the forward has kept, so a second backward runs the forward again first.
        """
        if not self.is_root:
            self.require_built()
            return super().backward(dy, input_grad)
        self._check("gradient", dy, self.output_shape)
        if dy.shape[-1] != self._batch:
            raise ShapeError(
                f"the gradient is for a batch of {dy.shape[-1]}, the latest training forward had "
                f"{self._batch}: call forward(x, training=True) with the same batch first"
            )
        arena = self.context.arena
        with self.backend.active():
            if not self._has_kept:
                with arena.holding(dy), self.context.recomputation.running():
                    super().forward(self._given, training=True)
            self._has_kept = False
            dx = super().backward(self.output_gradient_of(dy), input_grad)
            for layer in self.tree():
                layer.free_output()
            graph.launch(arena.restore, arena.state)  # which layers called in a repeated step change
            return None if dx is None else self._in(self.master_dtype, dx, "gradient of the input")

    def predict(
        self,
        images: Any,
        batch_size: int = EVALUATION_BATCH,
        tta: str | None = None,
        probabilities: bool = True,
        graph: bool = True,
    ) -> Any:
        """Probabilities for images: (N, C, H, W) or (N, H, W) -> (N, classes) on the host.

        The images are on the host or on the network's device: arrays of NumPy, CuPy, PyTorch, JAX or any
        library with ``__dlpack__`` or ``__cuda_array_interface__``. Those on the device are not copied if
        they are contiguous, and bytes or floats of the dtype of the parameters.
        Bytes are scaled as in training, floats are taken as they are, and then the network's
        ``preprocessing`` is applied. The output of a network that does not end in Softmax goes through one,
        unless it is a picture for each image, or ``probabilities`` is False, as for a network that was
        trained on several labels or on other numbers.
        With ``tta`` (test-time augmentation), such as "mirror" or "mirror,shifts=1", the outputs for several
        views of each image are averaged before that: see :func:`cnn.augment.views`. ``graph=False`` keeps a
        GPU from recording a batch and repeating it for the others. If memory runs out, the batch size is
        halved. Raises ShapeError for images of another shape, ArgumentError for images on another device,
        DataError if ``images`` are not images.
        """
        images = as_images(images)
        self.check_images(images)
        batch_size = whole("batch_size", batch_size)
        flag("probabilities", probabilities)
        flag("graph", graph)
        feed = Feed(
            self.backend, self.dtype, images, None, batch_size, preprocessing=self.preprocessing,
            views=views(tta),
        )  # fmt: skip
        found: list[Array] = []

        def step() -> None:
            y, _ = answers(self, feed)
            found[:] = [self.probabilities(y) if probabilities else y]

        inference = Inference(feed, step)

        def parts() -> list[Any]:
            return [np.moveaxis(self.backend.to_host(found[0]), -1, 0) for _ in inference.batches(graph)]

        with self.backend.active():
            return np.concatenate(with_fitting_batches(self, feed, parts))

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What is done to images before the network gets them; None: bytes are scaled to 0..1.

        ``fit``, ``evaluate``, ``predict`` and exports apply it, and files keep it. ``forward`` does not.
        """
        return self._preprocessing

    @preprocessing.setter
    def preprocessing(self, preprocessing: Preprocessing | None) -> None:
        self._require_root("the preprocessing")
        if preprocessing is not None:
            example = "cnn.Preprocessing(mean=(0.5,), std=(0.25,))"
            instance("preprocessing", preprocessing, Preprocessing, example).require(self.input_shape)
        self._preprocessing = preprocessing

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes that the outputs stand for; None if unknown. ``fit`` sets them, and files keep them."""
        return self._class_names

    @class_names.setter
    def class_names(self, names: Sequence[str] | None) -> None:
        self._require_root("the class names")
        self._class_names = as_class_names(names, self.output_shape)

    def probabilities(self, y: Array) -> Array:
        """Softmax of an inference output ``y``; ``y`` itself if it is probabilities already, or pictures."""
        if self.gives_probabilities or y.ndim > 2:
            return y
        out = self.buffer("probabilities", y.shape, self.master_dtype)
        self.backend.kernels.softmax(y, out)
        return out

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters by PyTorch's names: "0.weight", "0.bias", "3.weight", ..."""
        self.require_built()
        return super().parameters

    @property
    def statistics(self) -> dict[str, Array]:
        """What a training forward changes besides the parameters, as running means, by PyTorch's names."""
        self.require_built()
        return super().statistics

    @property
    def flat(self) -> Parameter:
        """All parameters in one vector, and all gradients in another; a layer of another network has none."""
        self._require_root("the vector of all parameters")
        return self._flat

    @property
    def state(self) -> dict[str, Array]:
        """Every array that a training step changes: parameters, statistics, counters of random numbers."""
        return {"parameters": self.flat.value, **self.statistics, **self.context.draws.state}

    def count_parameters(self, input_shape: Shape) -> int:
        """The number of parameters for samples of this shape, of a network that is not built.

        No memory is taken for them. ShapeError if a layer does not fit its input.
        """
        backend = backends.get("cpu", "portable")
        try:
            draws, arena = Draws(backend, 0), Arena(backend, "float32")
            super().build(input_shape, Context(backend, "float32", arena, draws, fuse=False))
            return sum(parameter.size for parameter in super().parameters.values())
        finally:
            self.unbuild()

    def count_update(self) -> None:
        """Let layers that draw random numbers draw others from now on; optimizers call this."""
        self.require_built()
        if self.context.draws.counters is not None:
            self.backend.kernels.count_update(self.context.draws.counters)

    def count_samples(self, samples: int) -> None:
        """Let layers that draw random numbers continue after so many samples of a batch, until the update."""
        if self.context.draws.counters is not None:
            self.backend.kernels.count_samples(self.context.draws.counters, samples)

    def cut(self, vector: Any) -> dict[str, Any]:
        """A vector as long as ``flat`` as views by the parameters' names."""
        if vector.shape != self.flat.shape:
            raise ShapeError(f"the vector is {vector.shape}, expected {self.flat.shape} as net.flat")
        return {
            name: vector[parameter.place].reshape(parameter.shape)
            for name, parameter in self.parameters.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Host copies of the parameters and statistics by name."""
        return {name: self.backend.to_host(array) for name, array in self.arrays.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over host arrays by name, cast to the dtype of the parameters; all of them or none.

        Raises CheckpointError, which names the first parameter that is missing, unknown or of another shape.
        """
        self.require_state(state)
        for name, place in self.arrays.items():
            if name in state:
                self.backend.asarray(as_array(name, state[name]), out=place)

    def require_state(self, state: Mapping[str, Any]) -> None:
        """Raise CheckpointError unless :meth:`load_state_dict` would take these arrays."""
        require_weights(state, self.arrays)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the parameters and statistics by name."""
        return {name: array.shape for name, array in self.arrays.items()}

    def save(self, path: str | Path, more: Mapping[str, Any] | None = None) -> None:
        """Write the weights and the architecture to a safetensors file, in full or not at all.

        ``more`` is added to what the file says of the network. :func:`cnn.load` reads such files.
        """
        write_whole(path, serialized(self.state_dict(), self.description | dict(more or {})))

    @property
    def description(self) -> dict[str, Any]:
        """How to build the network again, as plain data; or which layer keeps that from being said."""
        self.require_built()
        described = {"version": FILE_VERSION, "dtype": self.dtype, "input_shape": self.input_shape}
        if self.preprocessing is not None:
            described["preprocessing"] = self.preprocessing.description
        if self.class_names is not None:
            described["class_names"] = self.class_names
        try:
            return described | {"network": describe(self)}
        except CheckpointError as error:
            return described | {"not_described": str(error)}

    def summary(self) -> None:
        """Print layer, output shape, parameters, multiply-adds and memory."""
        from cnn.inspection.summary import show

        show(self)

    def copy(self) -> "Network":
        """The same network with buffers of its own: same device, same weights."""
        self.require_built()
        return self._copy(self.dtype)

    def in_full_precision(self) -> "Network":
        """The network itself; for one in mixed precision, a copy that computes in float32."""
        self.require_built()
        return self if self.dtype == self.master_dtype else self._copy(self.master_dtype)

    def _copy(self, dtype: str) -> "Network":
        """The same network with buffers of its own, which computes in ``dtype``."""
        if not self.is_root:
            self.require_alone()
        twin = self.fresh()
        twin.build(**self._place | {"dtype": dtype})
        twin.preprocessing, twin.class_names = self.preprocessing, self.class_names
        twin.freeze(*self.frozen_names)
        with self.backend.active():
            for array, value in zip(twin.state.values(), self.state.values(), strict=True):
                array[...] = value
        return twin

    def fresh(self) -> "Network":
        """The same layers, not yet built."""
        return cast(Network, super().fresh())

    @property
    def _place(self) -> dict[str, Any]:
        """The arguments of :meth:`build` for a network that takes the place of this one."""
        return {
            "input_shape": self.input_shape,
            "backend": self.backend,
            "seed": self._seed,
            "dtype": self.dtype,
            "fuse": self.context.fuse,
            "winograd": self.context.winograd,
        }

    def __deepcopy__(self, memo: Any) -> "Network":
        return self.copy() if self.built else self.fresh()

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not self.is_root:
            return super().__reduce_ex__(protocol)
        draws = {name: self.backend.to_host(array) for name, array in self.context.draws.state.items()}
        state = self.state_dict(), self.preprocessing, self.frozen_names, draws, self.class_names
        return _rebuilt, (self.fresh(), self._place, *state)

    def require_built(self) -> None:
        """Raise ArgumentError if the network has not been built."""
        if not self.built:
            raise ArgumentError("the network is not built yet: call net.build(input_shape) first")

    def _require_root(self, what: str) -> None:
        self.require_built()
        if not self.is_root:
            raise ArgumentError(
                f"layer {self.label} is part of another network, which has {what}: use that network"
            )

    def check_images(self, images: Any) -> None:
        """Raise an error unless images (N, C, H, W) are what the network was built for.

        ShapeError if it was built for another shape, ArgumentError if they are on another device.
        """
        self.require_built()
        if not (on_host(images) or self.backend.owns(images)):
            raise ArgumentError(
                f"the images are on {backends.of(images).name}, the network is on {self.backend.name}: build "
                "the network there, or give images on the host, as backends.of(images).to_host(images)"
            )
        if images.shape[1:] != self.input_shape:
            expected = f"(N, {', '.join(map(str, self.input_shape))})"
            last = looks_channels_last(images.shape)
            advice = f": {channels_last_advice(images.shape)}" if last else ""
            raise ShapeError(f"the images are {images.shape}, the network was built for {expected}{advice}")

    def _build_root(
        self, input_shape: Shape, backend: Backend | str, seed: int, dtype: str, fuse: bool, winograd: bool
    ) -> Shape:
        given = getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)  # np.dtype's, np.float32's
        name = require_dtype(given)
        whole("seed", seed, least=0)
        fuse, winograd = flag("fuse", fuse), flag("winograd", winograd)
        if isinstance(backend, str):
            backend = backends.get(backend)
        if not isinstance(backend, Backend):
            raise ArgumentError(f'backend is {shown(backend)}, expected a device such as backends.get("cpu")')
        backend.require_support(name)
        self.require_unbuilt()
        try:
            with backend.active():
                arena, draws = Arena(backend, name), Draws(backend, seed)
                super().build(input_shape, Context(backend, name, arena, draws, fuse, winograd))
                self._allocate(seed)
                self._freeze_untrainable()
                self.is_root, self._batch, self._seed = True, 0, seed
        except (OutOfMemory, MemoryError) as error:
            self.unbuild()
            advice = "the parameters alone do not fit: use another device, or a smaller network"
            raise out_of_memory(error, advice) from error
        except BaseException:
            self.unbuild()
            raise
        return self.output_shape

    def _allocate(self, seed: int) -> None:
        """Lay all parameters side by side in one vector, all gradients in another."""
        boundary = 256 // self.master_itemsize
        starts, size = [], 0
        for parameter in self.parameters.values():
            starts.append(size)
            size += -(-parameter.size // boundary) * boundary
        self._flat = Parameter(
            (size,),
            name="all",
            value=self.backend.zeros(size, self.master_dtype),
            grad=self.backend.zeros(size, self.master_dtype),
        )
        self._flat.operand = self._flat.value
        if self.dtype != self.master_dtype:
            self._flat.operand = self.backend.zeros(size, self.dtype)
        generator = random.generator(seed, random.WEIGHTS)
        for start, (name, parameter) in zip(starts, self.parameters.items(), strict=True):
            parameter.name = name
            parameter.place = place = slice(start, start + parameter.size)
            parameter.value = self._flat.value[place].reshape(parameter.shape)
            parameter.grad = self._flat.grad[place].reshape(parameter.shape)
            parameter.operand = self._flat.operand[place].reshape(parameter.shape)
            first = parameter.initializer
            initializer = initializers.get(first) if isinstance(first, str) else initializers.constant(first)
            values = initializer(generator, parameter.shape, parameter.fan_in)
            self.backend.asarray(values, out=parameter.value)

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
    network: Network,
    place: dict[str, Any],
    state: dict[str, Any],
    preprocessing: Preprocessing | None = None,
    frozen: Sequence[str] = (),
    draws: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> Network:
    """A network from what it was pickled as; version 0.1 had only its place and its state."""
    network.build(**place | {"dtype": dtype_on(place["backend"], place["dtype"])})
    network.load_state_dict(state)
    network.preprocessing, network.class_names = preprocessing, class_names
    network.freeze(*frozen)
    for name, values in (draws or {}).items():
        network.backend.asarray(values, out=network.context.draws.state[name])
    return network
