"""What layers made of other layers share."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from backends import graph
from backends.arena import Arena
from cnn.layers.layer import Array, Context, Layer, Parameter, Shape
from cnn.support.arguments import shown
from cnn.support.errors import ArgumentError


class Container(Layer):
    """A layer with layers inside it; it may have parameters and statistics of its own, too.

    A container calls the layers inside it through :func:`forward` and :func:`backward`, so that a repeated
    step calls those in Python that it cannot record, and so that what they read stays until they return.
    """

    @property
    @abstractmethod
    def children(self) -> dict[str, Layer]:
        """The layers by the names that stand before those of their parameters; "" for no name."""

    def build_child(self, name: str, input_shape: Shape, context: Context) -> Shape:
        """Build the child of this name; -> the shape of its output."""
        path = ".".join(part for part in (context.path, name) if part)
        return self.children[name].build(input_shape, replace(context, path=path))

    @property
    def parameters(self) -> dict[str, Parameter]:
        return dict(self._named(self._own_parameters, lambda child: child.parameters))

    @property
    def statistics(self) -> dict[str, Array]:
        return dict(self._named(self._own_statistics, lambda child: child.statistics))

    def _named(self, own: dict[str, Any], of: Callable[[Layer], dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        yield from own.items()
        for prefix, child in self.children.items():
            for name, value in of(child).items():
                yield (f"{prefix}.{name}" if prefix else name), value

    @property
    def mixes_samples(self) -> bool:  # type: ignore[override]
        return any(child.mixes_samples for child in self.children.values())

    @property
    def mixes_in_inference(self) -> bool:  # type: ignore[override]
        return any(child.mixes_in_inference for child in self.children.values())

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return max((child.workspace_bytes(batch, trained) for child in self.children.values()), default=0)

    def tree(self) -> Iterator[Layer]:
        yield self
        for child in self.children.values():
            yield from child.tree()

    def walk(self) -> Iterator[Layer]:
        for child in self.children.values():
            yield from child.walk()

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        for child in self.children.values():
            yield from child.walk_passes(training)

    @contextmanager
    def unfused(self) -> Iterator[None]:
        with ExitStack() as stack:
            for child in self.children.values():
                stack.enter_context(child.unfused())
            yield

    def unbuild(self) -> None:
        super().unbuild()
        for child in self.children.values():
            child.unbuild()

    def require_unbuilt(self) -> None:
        super().require_unbuilt()
        for child in self.children.values():
            child.require_unbuilt()


def require_layers(owner: str, layers: tuple[Any, ...]) -> list[Layer]:
    """``layers`` as a list; raises ArgumentError for something that is no layer."""
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ArgumentError(f"{owner}: item {position} is {shown(layer)}, expected a layer")
    return list(layers)


def forward(layer: Layer, x: Array, training: bool) -> Array:
    """``layer.forward(x, training)``, in a form that a repeated step can record."""
    if layer.recordable:
        return layer.forward(x, training)
    arena = layer.context.arena

    def run() -> Array:
        y = layer.forward(x, training)
        return y if training else arena.pass_on(y)

    return graph.call(_at_its_turn(arena, run, x))


def backward(layer: Layer, dy: Array, input_grad: bool) -> Array | None:
    """``layer.backward(dy, input_grad)``, in a form that a repeated step can record.

    What training kept of the layer's outputs is not needed any more.
    """
    if layer.recordable:
        dx = layer.backward(dy, input_grad)
        layer.free_output()
        return dx
    arena = layer.context.arena

    def run() -> Array | None:
        with arena.deferring():  # a layer of a user's own may read outputs of layers inside it
            dx = layer.backward(dy, input_grad)
            layer.free_output()
            return None if dx is None else arena.pass_on(dx)

    return graph.call(_at_its_turn(arena, run, dy))


def _at_its_turn(arena: Arena, run: Callable[[], Array | None], given: Array) -> Callable[[], Array | None]:
    """``run`` for a repeated step: it finds the places of arrays as they are now, and ``given`` stays."""
    state = arena.state

    def call() -> Array | None:
        arena.restore(state)
        with arena.holding(given):
            return run()

    return call
