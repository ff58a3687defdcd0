"""Branches: layers that work on the same input, whose outputs are joined."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

from backends.kernels.functions import Function
from cnn.layers.container import Container, backward, forward, require_layers
from cnn.layers.fusion import Fused, joins
from cnn.layers.layer import Array, Context, Layer, Shape
from cnn.layers.sequential import Sequential
from cnn.support.arguments import instance, shown
from cnn.support.errors import ArgumentError, ShapeError

JOINS = ("add", "concatenate")


class Parallel(Container):
    """Branches on the same input: their outputs are added, or concatenated along the first axis.

    Added outputs must have one shape. Concatenated ones must be equal in all axes but the first, as
    (C1, H, W) and (C2, H, W) -> (C1 + C2, H, W): an Inception block (Szegedy et al. 2015). ``Sequential()``
    is a branch that passes its input on, as in a DenseNet block (Huang et al. 2017).

    Raises ArgumentError for another ``join`` or without branches, and ShapeError, when built, for outputs
    that cannot be joined.
    """

    _held_in_inference = "y"  # besides the input

    def __init__(self, *branches: Layer, join: str = "add") -> None:
        self.branches = require_layers("Parallel", branches)
        if join not in JOINS:
            raise ArgumentError(f"Parallel: join is {shown(join)}, expected {' or '.join(JOINS)}")
        if not branches:
            raise ArgumentError("Parallel has no branches, expected at least one layer")
        self.join = join

    @property
    def children(self) -> dict[str, Layer]:
        return {str(index): branch for index, branch in enumerate(self.branches)}

    @property
    def config(self) -> dict[str, Any]:
        return {"layers": self.branches, "join": self.join}

    def build(self, input_shape: Shape, context: Context) -> Shape:
        super().build(input_shape, context)
        inside = replace(context, level=context.level + 1)
        shapes = [self.build_child(name, input_shape, inside) for name in self.children]
        first, same = shapes[0], 0 if self.join == "add" else 1  # axes from ``same`` on must be equal
        if any(len(shape) != len(first) or shape[same:] != first[same:] for shape in shapes):
            raise ShapeError(
                f"layer {self.label}: the branches give {' and '.join(map(str, shapes))} for an input of "
                f"{input_shape}, which cannot be joined by {self.join!r}"
            )
        starts = [0]
        for shape in shapes:
            starts.append(starts[-1] + shape[0])
        self._parts = [slice(*ends) for ends in pairwise(starts)]
        self.output_shape = first if self.join == "add" else (starts[-1], *first[1:])
        return self.output_shape

    def forward(self, x: Array, training: bool = False) -> Array:
        kernels = self.backend.kernels
        x = self._kept(x, "x", training)
        shape = (*self.output_shape, x.shape[-1])
        y = self.buffer("y", shape) if training else self._held("y", shape)
        for number, (branch, part) in enumerate(zip(self.branches, self._parts, strict=True)):
            output = forward(branch, x, training)
            if self.join == "concatenate":
                kernels.copy(output, y[part])
            elif number == 0:
                kernels.copy(output, y)
            else:
                kernels.add(y, output, y)
        return y

    def _kept(self, x: Array, name: str, training: bool) -> Array:
        """``x``, or a copy in inference, where it is in scratch, which the branches write into."""
        if training:
            return x
        kept = self._held(name, x.shape)
        self.backend.kernels.copy(x, kept)
        return kept

    def _held(self, name: str, shape: Shape) -> Array:
        """Room for ``shape``, in memory that all blocks of the same level share."""
        return self.context.scratch.held(name, self.context.level, shape)

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        kernels = self.backend.kernels
        kept = self._held("dy", dy.shape)  # the branches write into scratch, where dy may be
        kernels.copy(dy, kept)
        dx = self._held("dx", (*self.input_shape, dy.shape[-1])) if input_grad else None
        for number, (branch, part) in enumerate(zip(self.branches, self._parts, strict=True)):
            gradient = backward(branch, kept if self.join == "add" else kept[part], input_grad)
            if dx is None:
                continue
            if number == 0:
                kernels.copy(gradient, dx)
            else:
                kernels.add(dx, gradient, dx)
        return dx

    def held_bytes(self, batch: int, trained: int) -> dict[tuple[str, int], int]:
        itemsize = self.itemsize
        x, y = (prod(shape) * itemsize for shape in (self.input_shape, self.output_shape))
        held = {"x": x * batch, self._held_in_inference: y * batch, "dx": x * trained, "dy": y * trained}
        return {(name, self.context.level): size for name, size in held.items() if name}

    def fresh(self) -> "Parallel":
        return type(self)(*(branch.fresh() for branch in self.branches), join=self.join)

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        yield from super().walk_passes(training)
        yield (self,)

    def __repr__(self) -> str:
        return f"Parallel({', '.join(map(repr, self.branches))}, join={self.join!r})"


class Residual(Parallel):
    """``y = layers(x) + shortcut(x)``; without a ``shortcut``, ``y = layers(x) + x`` (He et al. 2016).

    A shortcut, such as a 1x1 convolution, is needed if the layers change the shape. The names of the layers'
    parameters come first ("0.weight"), then those of the shortcut ("shortcut.weight").

    Raises ShapeError when built, if the two cannot be added.
    """

    def __init__(self, *layers: Layer, shortcut: Layer | None = None) -> None:
        if shortcut is not None:
            instance("Residual: shortcut", shortcut, Layer, "cnn.Conv2D(64, 1)")
        self.layers = require_layers("Residual", layers)
        self.shortcut = shortcut
        super().__init__(Sequential(*layers), Sequential() if shortcut is None else shortcut)

    @property
    def children(self) -> dict[str, Layer]:
        return {"": self.branches[0], "shortcut": self.branches[1]}

    @property
    def config(self) -> dict[str, Any]:
        return {"layers": self.layers, "shortcut": self.shortcut}

    @property
    def _held_in_inference(self) -> str:  # type: ignore[override]
        return "addend" if self.shortcut is not None else ""

    def forward(self, x: Array, training: bool = False, formula: Function | None = None) -> Array:
        """The sum, or if the layers end in one that joins, the function ``formula`` of it."""
        layers, shortcut = self.branches
        x = self._kept(x, "x", training)
        addend = forward(shortcut, x, training)
        addend = addend if addend is x else self._kept(addend, "addend", training)
        if joins(layers):
            return layers.forward_joined(x, training, addend, formula)
        output = forward(layers, x, training)
        y = self.output(output, training)
        self.backend.kernels.add(output, addend, y)
        return y

    def backward(self, dy: Array, input_grad: bool = True, formula: Function | None = None) -> Array | None:
        layers, shortcut = self.branches
        wanted = input_grad or shortcut.is_trained
        grad = self._held("dy", dy.shape)
        if joins(layers):
            along = layers.backward_joined(dy, wanted, grad, formula)
        else:
            self.backend.kernels.copy(dy, grad)  # from scratch, which the layers write into
            along = backward(layers, dy, wanted)
        if not input_grad:
            return backward(shortcut, grad, False) if shortcut.is_trained else None
        dx = self._held("dx", (*self.input_shape, dy.shape[-1]))
        if self.shortcut is None:
            self.backend.kernels.add(along, grad, dx)
        else:
            self.backend.kernels.copy(along, dx)  # from scratch, which the shortcut writes into
            self.backend.kernels.add(dx, backward(shortcut, grad, True), dx)
        return dx

    def fuse(self, following: Sequence[Layer]) -> Layer | None:
        if joins(self.branches[0]) and following and following[0].is_own and following[0].formula is not None:
            return FusedResidual(self, following[0])
        return None

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        """Those inside; in training, the last layer that joins and this one are one pass."""
        *inside, _ = super().walk_passes(training)
        last = [*self.branches[0].walk_passes(training)][-1] if training and joins(self.branches[0]) else ()
        yield from (together for together in inside if together != last)
        yield (*last, self)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        """That of the layers, and what the last one needs for the sum and its gradient."""
        numbers = prod(self.output_shape) * self.master_itemsize
        return super().workspace_bytes(batch, trained) + 2 * numbers * trained

    def fresh(self) -> "Residual":
        layers: Sequence[Layer] = [layer.fresh() for layer in self.layers]
        return type(self)(*layers, shortcut=None if self.shortcut is None else self.shortcut.fresh())

    def __repr__(self) -> str:
        shortcut = [] if self.shortcut is None else [f"shortcut={self.shortcut!r}"]
        return f"Residual({', '.join([*map(repr, self.layers), *shortcut])})"


class FusedResidual(Fused):
    """A residual block and the activation after it, which the last layer of the block computes too."""

    def __init__(self, residual: Residual, activation: Layer) -> None:
        super().__init__(residual, activation)
        self.residual = residual

    def forward(self, x: Array, training: bool = False) -> Array:
        return self.residual.forward(x, training, self.last.formula)

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        return self.residual.backward(dy, input_grad, self.last.formula)

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return self.residual.workspace_bytes(batch, trained)

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        *inside, last = self.residual.walk_passes(training)
        yield from inside
        yield (*last, *self.layers[1:])
