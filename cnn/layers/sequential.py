"""Layers one after the other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from backends.kernels.functions import Function
from cnn.layers.container import Container, backward, forward, require_layers
from cnn.layers.fusion import Joinable, is_dropped, joins, passes, reads_input, reads_output
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.layers.recomputation import Recomputed, kept, recomputed


class Sequential(Container, Joinable):
    """Each layer's output is the next one's input. Neighbouring layers run in one pass if they can."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = require_layers("Sequential", layers)

    @property
    def children(self) -> dict[str, Layer]:
        return {str(index): layer for index, layer in enumerate(self.layers)}

    @property
    def config(self) -> dict[str, Any]:
        return {"layers": self.layers}

    @property
    def gives_probabilities(self) -> bool:  # type: ignore[override]
        last = next((layer for layer in reversed(self.layers) if not layer.is_view), None)
        return last is not None and last.gives_probabilities

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        for name in self.children:
            self.output_shape = self.build_child(name, self.output_shape, context)
        self.passes = self._fused = passes(self.layers) if context.fuse else list(self.layers)
        return self.output_shape

    @property
    def joins(self) -> bool:  # type: ignore[override]
        is_fused = self.context.fuse and self.passes is self._fused
        return is_fused and bool(self.passes) and joins(self.passes[-1])

    @property
    def reads_input(self) -> bool:  # type: ignore[override]
        return not self.passes or reads_input(self.passes[0])

    @property
    def reads_output(self) -> bool:  # type: ignore[override]
        return not self.passes or reads_output(self.passes[-1])

    def forward(self, x: Array, training: bool = False) -> Array:
        for index in range(len(self.passes)):
            x = self._forward(index, x, training, forward)
        return x

    def forward_joined(
        self, x: Array, training: bool, addend: Array, formula: Function | None, addend_stays: bool
    ) -> Array:
        def joined(layer: Any, x: Array, training: bool) -> Array:
            return layer.forward_joined(x, training, addend, formula, addend_stays)

        last = len(self.passes) - 1
        for index in range(last):
            x = self._forward(index, x, training, forward)
        return self._forward(last, x, training, joined)

    def _forward(self, index: int, x: Array, training: bool, run: Callable[..., Array]) -> Array:
        """The output of a pass for ``x``, the memory of which is free then, if training does not need it."""
        y = run(self.passes[index], x, training)
        if training and index and is_dropped(self.passes[index - 1], self.passes[index]):
            self.context.arena.free_array(x)
        return y

    def kept_outputs(self) -> Iterator[Layer]:
        for index, layer in enumerate(self.passes):
            outputs = [*layer.kept_outputs()]
            if index + 1 < len(self.passes) and is_dropped(layer, self.passes[index + 1]):
                outputs.pop()
            yield from outputs

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        return self._backward(len(self.passes), dy, input_grad)

    def backward_joined(
        self, dy: Array, input_grad: bool, addend_grad: Array, formula: Function | None
    ) -> Array | None:
        last: Any = self.passes[-1]
        wanted = input_grad or self._first_trained < len(self.passes) - 1
        along = last.backward_joined(dy, wanted, addend_grad, formula)
        last.free_output()
        return self._backward(len(self.passes) - 1, along, input_grad)

    @property
    def _first_trained(self) -> int:
        return next((i for i, layer in enumerate(self.passes) if layer.is_trained), len(self.passes))

    def _backward(self, count: int, gradient: Array | None, input_grad: bool) -> Array | None:
        """The gradient of the input of the first ``count`` passes, for that of their output."""
        first_trained = self._first_trained
        for index in reversed(range(count)):
            if not input_grad and index < first_trained:
                return None
            gradient = backward(self.passes[index], gradient, input_grad or index > first_trained)
        return gradient

    def fresh(self) -> "Sequential":
        twin = type(self).__new__(type(self))  # a user's own class may take other arguments
        vars(twin).update(self._unbuilt if self.built else vars(self))
        twin.layers = [layer.fresh() for layer in self.layers]
        return twin

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return max((layer.workspace_bytes(batch, trained) for layer in self.passes), default=0)

    def in_sequence(self) -> Iterator[Layer]:
        if not self.is_own:
            yield self
            return
        for layer in self.layers:
            yield from layer.in_sequence()

    @contextmanager
    def unfused(self) -> Iterator[None]:
        with self.recomputing(False), super().unfused():
            self.passes = list(self.layers)
            try:
                yield
            finally:
                self.passes = self._fused

    @contextmanager
    def recomputing(self, wanted: bool = True) -> Iterator[None]:
        """In the ``with`` block, turn the recomputation of blocks in the backward pass on or off.

        A block is a layer with layers inside it, all of them the library's own (see :class:`Recomputed`).
        """
        before = self.recomputes
        self._recompute(wanted)
        try:
            yield
        finally:
            self._recompute(before)

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass computes blocks of layers again."""
        return any(isinstance(layer, Recomputed) for layer in self._fused)

    def _recompute(self, wanted: bool) -> None:
        if wanted != self.recomputes:
            self.passes = self._fused = recomputed(self._fused) if wanted else kept(self._fused)

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        for layer in self.passes:
            yield from layer.walk_passes(training)
