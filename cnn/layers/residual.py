"""Branches: layers that work on the same input, whose outputs are joined."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

from backends.arena import Arena
from backends.kernels.functions import Function
from cnn.layers.container import Container, backward, forward, require_layers
from cnn.layers.fusion import Fused, joins, reads_output
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

    reads_output = False

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
        y = self.output(x, training)
        with self._arena.holding(x, y):
            for number, (branch, part) in enumerate(zip(self.branches, self._parts, strict=True)):
                output = forward(branch, x, training)
                if self.join == "concatenate":
                    kernels.copy(output, y[part])
                elif number == 0:
                    kernels.copy(output, y)
                else:
                    kernels.add(y, output, y)
                if training and not reads_output(branch):
                    self._arena.free_array(output)
            return y if training else self._arena.pass_on(y)

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        kernels = self.backend.kernels
        dx = self.input_gradient(dy) if input_grad else None
        with self._arena.holding(dy, dx):
            for number, (branch, part) in enumerate(zip(self.branches, self._parts, strict=True)):
                gradient = backward(branch, dy if self.join == "add" else dy[part], input_grad)
                if dx is None:
                    continue
                if number == 0:
                    kernels.copy(gradient, dx)
                else:
                    kernels.add(dx, gradient, dx)
            return None if dx is None else self._arena.pass_on(dx)

    @property
    def _arena(self) -> Arena:
        return self.context.arena

    def kept_outputs(self) -> Iterator[Layer]:
        for branch in self.branches:
            yield from _kept_inside(branch)
        yield self

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

    def forward(self, x: Array, training: bool = False, formula: Function | None = None) -> Array:
        """The sum, or if the layers end in one that joins, the function ``formula`` of it."""
        layers, shortcut = self.branches
        with self._arena.holding(x):
            addend = forward(shortcut, x, training)
            with self._arena.holding(addend):
                if not joins(layers):
                    output = forward(layers, x, training)
                    y = self.output(output, training)
                    self.backend.kernels.add(output, addend, y)
                    if training and not reads_output(layers):
                        self._arena.free_array(output)
                else:
                    y = layers.forward_joined(x, training, addend, formula, self.addend_stays(formula))
            if training and self._drops_addend(formula):
                self._arena.free_array(addend)
        return y

    def addend_stays(self, formula: Function | None) -> bool:
        """Whether the shortcut's output is there in the backward pass: as the input, or because it has to."""
        return self.shortcut is None or not (formula is None or formula.keeps_slope)

    def _drops_addend(self, formula: Function | None) -> bool:
        return not (self.addend_stays(formula) or reads_output(self.branches[1]))

    def backward(self, dy: Array, input_grad: bool = True, formula: Function | None = None) -> Array | None:
        layers, shortcut = self.branches
        wanted = input_grad or shortcut.is_trained
        grad = self._arena.like(dy, dy.shape) if joins(layers) else dy
        with self._arena.holding(grad):
            if joins(layers):
                along = layers.backward_joined(dy, wanted, grad, formula)
            else:
                along = backward(layers, dy, wanted)
            if not input_grad:
                return backward(shortcut, grad, False) if shortcut.is_trained else None
            with self._arena.holding(along):
                around = grad if self.shortcut is None else backward(shortcut, grad, True)
                dx = self.input_gradient(around)
                self.backend.kernels.add(along, around, dx)
        return dx

    def kept_outputs(self) -> Iterator[Layer]:
        yield from self.kept_outputs_with(None)

    def kept_outputs_with(self, formula: Function | None) -> Iterator[Layer]:
        """The layers whose outputs training keeps, if ``formula`` is applied to the sum."""
        layers, shortcut = self.branches
        yield from _kept_inside(shortcut) if self._drops_addend(formula) else shortcut.kept_outputs()
        if joins(layers):
            yield from layers.kept_outputs()
        else:
            yield from _kept_inside(layers)
            yield self

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


def _kept_inside(branch: Layer) -> Iterator[Layer]:
    """The layers of a branch whose outputs training keeps after the branches have been joined."""
    outputs = [*branch.kept_outputs()]
    yield from outputs if reads_output(branch) else outputs[:-1]


class FusedResidual(Fused):
    """A residual block and the activation after it, which the last layer of the block computes too."""

    def __init__(self, residual: Residual, activation: Layer) -> None:
        super().__init__(residual, activation)
        self.residual = residual

    @property
    def reads_output(self) -> bool:  # type: ignore[override]
        return not self.residual.addend_stays(self.last.formula)

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

    def kept_outputs(self) -> Iterator[Layer]:
        yield from self.residual.kept_outputs_with(self.last.formula)
