"""Blocks that compute what is inside them again in the backward pass, so that it need not be kept.

This is activation checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from collections.abc import Iterator, Sequence

from backends.arena import Place
from backends.memory import Buffers
from cnn.layers.fusion import Fused
from cnn.layers.layer import Array, Layer


class Recomputed(Fused):
    """A block of layers that keeps its input alone.

    Its backward runs the training forward again first, which gives the same bits: random numbers follow from
    counters that stay until the update. Statistics are changed by the first forward alone.
    """

    reads_output = False

    def __init__(self, block: Layer) -> None:
        super().__init__(*block.in_one_pass)
        self.block = block
        self._kept: Place | None = None  # of the output

    def forward(self, x: Array, training: bool = False) -> Array:
        if not training:
            return self.block.forward(x)
        self.free_output()
        self._x = x
        self._kept = self.last.context.arena.allocate((*self.last.output_shape, x.shape[-1]))
        self.backend.kernels.copy(self.block.forward(x, training), self._kept.array)
        for layer in layers_of(self.block):
            layer.free_output()
        return self._kept.array

    def backward(self, dy: Array, input_grad: bool = True) -> Array | None:
        with self.last.context.arena.holding(dy):
            with self.last.context.recomputation.running():
                self.block.forward(self._x, training=True)
            return self.block.backward(dy, input_grad)

    def free_output(self) -> None:
        super().free_output()
        if self._kept is not None:
            self.last.context.arena.free(self._kept)
            self._kept = None

    def workspace_bytes(self, batch: int, trained: int) -> int:
        return self.block.workspace_bytes(batch, trained)

    def walk_passes(self, training: bool = True) -> Iterator[tuple[Layer, ...]]:
        yield from self.block.walk_passes(training)


def is_recomputable(layer: Layer) -> bool:
    """Whether a pass is a block that two training forwards in a row change no more than one does."""
    parts = layers_of(layer)
    is_block = len(parts) > len(layer.in_one_pass)
    return is_block and all(part.recordable and not part.synchronized for part in parts)


def layers_of(block: Layer) -> list[Layer]:
    """All layers of a pass, with those inside them, always in the same order."""
    return [part for layer in block.in_one_pass for part in layer.tree()]


def recomputed(passes: Sequence[Layer]) -> list[Layer]:
    """The passes, with blocks that are recomputed; what these do not keep is in memory that all share."""
    shared: list[Buffers] = []
    found = [Recomputed(layer) if is_recomputable(layer) else layer for layer in passes]
    for block in found:
        if isinstance(block, Recomputed):
            for position, layer in enumerate(layers_of(block)):
                if position == len(shared):
                    shared.append(Buffers(layer.backend, layer.dtype))
                layer.use(shared[position])
    return found


def kept(passes: Sequence[Layer]) -> list[Layer]:
    """The passes that :func:`recomputed` was given, whose layers have memory of their own again."""
    for block in passes:
        if isinstance(block, Recomputed):
            for layer in layers_of(block):
                layer.use(Buffers(layer.backend, layer.dtype))
    return [layer.block if isinstance(layer, Recomputed) else layer for layer in passes]
