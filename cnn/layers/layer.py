"""What a layer is: build, forward, backward."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

from backends import Backend
from backends.arena import Arena, Place
from backends.kernels.functions import Function
from backends.memory import Array, Buffers, Shape
from cnn.layers import initializers
from cnn.layers.draws import Draws
from cnn.layers.synchronized import Link
from cnn.layers.trainable import Trainable
from cnn.support import origin
from cnn.support.arguments import countable
from cnn.support.dtypes import master_of
from cnn.support.errors import ArgumentError


@dataclass
class Parameter:
    """A trainable array and its gradient, which are views of the flat vectors ``net.flat``."""

    shape: Shape
    initializer: str | float = "zeros"
    fan_in: int = 1
    name: str = ""  # in the network: "0.weight"
    place: slice = field(default_factory=lambda: slice(0))  # in the network's vectors
    value: Array = None
    grad: Array = None
    operand: Array = None  # what products read: the value, rounded to 16 bits in mixed precision
    frozen: bool = False  # whether training leaves it as it is

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


class Recomputation:
    """Whether a training forward is being run again during the backward pass."""

    is_running = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """In the ``with`` block, training forwards give the same as before and change no statistics."""
        self.is_running = True
        try:
            yield
        finally:
            self.is_running = False


@dataclass(frozen=True)
class Context:
    """What a network shares with its layers when it builds them."""

    backend: Backend
    dtype: Any
    arena: Arena
    draws: Draws
    fuse: bool = True  # whether layers may be computed together in one pass
    winograd: bool = True  # whether kernels may use Winograd's algorithm
    path: str = ""
    level: int = 0  # how many layers with branches there are around it
    link: Link = field(default_factory=Link)  # to other processes
    recomputation: Recomputation = field(default_factory=Recomputation)

    @property
    def master_dtype(self) -> Any:
        """The dtype of parameters and sums: float32 if activations have 16 bits, otherwise theirs."""
        return master_of(self.dtype)


class Layer(Trainable):
    """A part of a network. A new layer overrides :meth:`forward`, :meth:`backward` and often :meth:`build`.

    :meth:`build` receives the shape of one sample; it calls ``super().build`` and declares parameters.
    :meth:`forward` and :meth:`backward` receive arrays whose last axis is the batch. They write into arrays
    of the layer, never into their input or ``dy``, and gradients are overwritten, not added to. The
    constructor stores each argument under its own name. A layer object belongs to one place in one network.

    The input and ``dy`` are valid until the method returns. The input and the output of a training forward
    are valid until ``backward`` has returned; after that, gradients take their place. The outputs of
    inference and the gradients of inputs share memory: the layer that runs next can read them, and may have
    overwritten them when it returns. A container that needs the output of inference or the gradient of one
    child after another child has run must copy it, or hold it by
    ``with self.context.arena.holding(array):``.
    """

    built = False
    path = ""  # its place in the network: "3", or "3.1" inside a container
    is_view = False  # whether the output is the input's numbers in another shape
    gives_probabilities = False  # whether the outputs are not negative and add up to 1
    mixes_samples = False  # whether a sample's training output depends on the rest of the batch
    mixes_in_inference = False  # whether the same holds in inference
    reads_input = True  # whether backward reads the input of the latest training forward
    reads_output = True  # or its output
    synchronized = False  # whether training exchanges messages with other processes
    algorithm = ""  # by which large batches are computed, if summaries should say so
    epilogue: str | None = None  # the name under which a preceding layer can fuse this one, as "relu"

    def __init_subclass__(cls) -> None:
        cls.epilogue = vars(cls).get("epilogue")  # a subclass may compute something else

    @property
    def is_own(self) -> bool:
        """Whether forward and backward are this library's, and not those of a class derived from it."""
        methods = self.forward, self.backward
        return origin.is_own(self) and all(map(origin.is_own_function, methods))

    @property
    def recordable(self) -> bool:
        """Whether forward and backward consist of kernel calls alone, so that a device can repeat just those.

        The library's own layers do. Any other layer is called again in each repeated step.
        """
        return self.is_own

    @property
    def formula(self) -> Function | None:
        """The function of each number that the layer computes, if that is all it does and kernels know it."""
        return None

    def fuse(self, following: Sequence["Layer"]) -> "Layer | None":
        """This layer and the first of ``following`` as one pass; None if there is no such pass."""
        return None

    @property
    def kind(self) -> str:
        """The name of its class, as files and messages have it."""
        return type(self).__name__

    @property
    def itemsize(self) -> int:
        """Bytes of a number of its input and output."""
        return int(self.backend.xp.dtype(self.dtype).itemsize)

    @property
    def master_itemsize(self) -> int:
        """Bytes of a number of its parameters and sums."""
        return int(self.backend.xp.dtype(self.master_dtype).itemsize)

    @property
    def label(self) -> str:
        """How messages call it: "3 Conv2D"."""
        return f"{self.path} {self.kind}".strip()

    def build(self, input_shape: Shape, context: Context) -> Shape:
        """Take up the place in a network: shapes and parameters, no data. -> the output's shape."""
        self.require_unbuilt()
        self._unbuilt = dict(vars(self))
        self.built = True
        self.path = context.path
        self.context = context
        self.backend = context.backend
        self.dtype, self.master_dtype = context.dtype, context.master_dtype
        self.input_shape = self.output_shape = input_shape
        self._buffers = Buffers(context.backend, context.dtype)
        self._kept_output: Place | None = None  # of the output of the latest training forward
        self._own_parameters: dict[str, Parameter] = {}
        self._own_statistics: dict[str, Array] = {}
        return input_shape

    def require_unbuilt(self) -> None:
        """Raise where the layer has its place in a network already."""
        if self.built:
            raise ArgumentError(
                f"layer {self.label} is built already: a layer object has one place in one network, "
                "make another for this one"
            )

    def unbuild(self) -> None:
        """Give up the place in a network and all that came with it, so that the layer can be built again."""
        if self.built:
            before = self._unbuilt
            vars(self).clear()
            vars(self).update(before)

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for ``x``; a training forward keeps what :meth:`backward` needs."""
        raise NotImplementedError

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        """Write the parameters' gradients; -> the input's gradient, or None where it is not wanted.

        ``dy`` is the gradient of the output of the latest training forward.
        """
        raise NotImplementedError

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters by name."""
        return self._own_parameters

    @property
    def own_parameters(self) -> dict[str, Parameter]:
        """The parameters that the layer has declared itself, without those of layers inside it."""
        return self._own_parameters

    @property
    def statistics(self) -> dict[str, Array]:
        """Arrays by name, besides the parameters, that a training forward changes and files keep."""
        return self._own_statistics

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, so that the layer can be made again."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    @property
    def multiply_adds(self) -> int:
        """Multiplications with an addition, forward, for one sample."""
        return 0

    @property
    def kept_bytes(self) -> int:
        """Bytes that training keeps for one sample besides the output."""
        return 0

    @property
    def filters(self) -> Parameter | None:
        """The weight (O, C, KH, KW) if it can be shown as pictures, else None."""
        return None

    def workspace_bytes(self, batch: int, trained: int) -> int:
        """Bytes of scratch that the portable kernels need besides input and output.

        ``batch`` is the number of samples in the largest batch, ``trained`` in the largest training batch.
        """
        return 0

    def kept_outputs(self) -> Iterator["Layer"]:
        """The layers whose outputs training keeps until the backward pass; the last is that of the output."""
        if not self.is_view:
            yield self

    def walk(self) -> Iterator["Layer"]:
        """This layer, or the layers inside it."""
        yield self

    def tree(self) -> Iterator["Layer"]:
        """This layer and all layers inside it."""
        yield self

    @property
    def in_one_pass(self) -> tuple["Layer", ...]:
        """The layers whose forward and backward this one runs: itself, or those that are fused in it."""
        return (self,)

    def in_sequence(self) -> Iterator["Layer"]:
        """The layers that follow each other: this one, or those inside a plain Sequential."""
        yield self

    def walk_passes(self, training: bool = True) -> Iterator[tuple["Layer", ...]]:
        """All layers, those that run in one pass together; those inside containers included."""
        yield (self,)

    @contextmanager
    def unfused(self) -> Iterator[None]:
        """Inside the block every layer runs by itself, so that the layers can be observed one by one."""
        yield

    def fresh(self) -> "Layer":
        """The same layer, not yet built."""
        return type(self)(**self.config)

    def require_alone(self) -> None:
        """Raise if the layer has its place in a network, which it cannot be copied or pickled without."""
        if self.built:
            raise ArgumentError(
                f"layer {self.label} has its place in a network and cannot be copied or pickled by itself: "
                "take the network, or layer.fresh(), which is the layer without its weights"
            )

    def __reduce_ex__(self, protocol: Any) -> Any:
        self.require_alone()
        return super().__reduce_ex__(protocol)

    def parameter(self, name: str, shape: Shape, initializer: str | float, fan_in: int = 1) -> Parameter:
        """Declare a parameter; the network gives it its place and its first value.

        ``initializer`` is the name of an initializer, or a number, which is then the first value itself.
        """
        if not isinstance(initializer, int | float):
            initializers.require(initializer, f"layer {self.label}")
        countable(f"layer {self.label}: {name}", shape)
        self._own_parameters[name] = Parameter(shape, initializer, fan_in)
        return self._own_parameters[name]

    def statistic(self, name: str, shape: Shape, initial: float, dtype: Any = None) -> Array:
        """Declare an array that a training forward changes, such as a running mean; -> the array."""
        array = self.backend.zeros(prod(shape), dtype or self.master_dtype).reshape(shape)
        array.fill(initial)
        self._own_statistics[name] = array
        return array

    def buffer(self, name: str, shape: Shape, dtype: Any = None) -> Array:
        """An array of this layer, allocated once per name; its contents are arbitrary."""
        return self._buffers.view(name, shape, dtype)

    def use(self, buffers: Buffers) -> None:
        """Take the arrays of :meth:`buffer` from ``buffers`` from now on."""
        self._buffers = buffers
        self.backend.allocations += 1  # steps recorded before have the arrays of before

    def output(self, x: Array, training: bool) -> Array:
        """An array for the output; in training, the layer owns it until :meth:`free_output`."""
        shape = (*self.output_shape, x.shape[-1])
        if not training:
            return self.context.arena.like(x, shape)
        self.free_output()
        self._kept_output = self.context.arena.allocate(shape)
        return self._kept_output.array

    def free_output(self) -> None:
        """Let others have the memory of the output of the latest training forward."""
        if self._kept_output is not None:
            self.context.arena.free(self._kept_output)
            self._kept_output = None

    def input_gradient(self, dy: Array) -> Array:
        """An array for the input's gradient, which is valid until the layer before has used it."""
        return self.context.arena.like(dy, (*self.input_shape, dy.shape[-1]))

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{k}={v!r}' for k, v in self.config.items())})"
