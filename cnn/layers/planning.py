"""How much memory the outputs of layers and their gradients take, which share it if they can."""

from math import prod

from cnn.layers.layer import Layer
from cnn.layers.recomputation import Recomputed, is_recomputable
from cnn.layers.sequential import Sequential

SMALL = 256  # one part in so many is for small arrays between the large ones


def training_bytes(network: Sequential, batch: int, recompute: bool | None = None) -> int:
    """Bytes in which training has space for the outputs and gradients of a batch of ``batch`` samples.

    ``recompute``: whether blocks are recomputed; None: as the network does it now.
    """
    wanted = network.recomputes if recompute is None else recompute
    return _bytes(network, batch, _training_numbers(network, wanted))


def inference_bytes(network: Sequential, batch: int) -> int:
    """The same for the outputs in inference."""
    return _bytes(network, batch, max(map(_passed_on, network.walk_passes(training=False)), default=0))


def _training_numbers(network: Sequential, recompute: bool) -> int:
    """Numbers for one sample: the most that outputs and gradients take at a time in the backward pass."""
    kept = set(network.kept_outputs())
    before = most = 0  # numbers in the outputs of the passes before
    for each in network.passes:
        block = each.block if isinstance(each, Recomputed) else each
        recomputed = recompute and is_recomputable(block)
        output = prod(each.in_one_pass[-1].output_shape) * recomputed  # kept besides what is inside
        outputs = set(block.kept_outputs()) if recomputed else kept
        inside = before + output
        for together in block.walk_passes():
            inside += prod(together[-1].output_shape) * (not outputs.isdisjoint(together))
            most = max(most, inside + _passed_on(together))
        before = before + output if recomputed else inside
    return most


def _passed_on(together: tuple[Layer, ...]) -> int:
    """Numbers of the input and the output of a pass, or of their gradients, and of what a branch holds."""
    ends = prod(together[0].input_shape), prod(together[-1].output_shape)
    in_branch = any(layer.context.level for layer in together)
    return sum(ends) + max(ends) * in_branch


def _bytes(network: Sequential, batch: int, numbers: int) -> int:
    size = numbers * batch * network.itemsize
    return size + size // SMALL
