"""How much memory the outputs of layers and their gradients take, which share it if they can."""

from math import prod

from cnn.layers.layer import Layer
from cnn.layers.recomputation import Recomputed
from cnn.layers.sequential import Sequential

SMALL = 128  # one part in so many is for small arrays between the large ones


def planned_bytes(network: Sequential, batch: int, training: bool) -> int:
    """Bytes in which a step of training, or an inference, finds room for a batch of ``batch`` samples."""
    numbers = training_numbers(network) if training else inference_numbers(network)
    size = numbers * batch * network.backend.xp.dtype(network.dtype).itemsize
    return size + size // SMALL


def training_numbers(network: Sequential) -> int:
    """Numbers for one sample: the most that outputs and gradients take at a time in the backward pass."""
    kept = set(network.kept_outputs())
    before = most = 0  # numbers in the outputs of the passes before
    for each in network.passes:
        blocks = {*each.block.kept_outputs(), *kept} if isinstance(each, Recomputed) else kept
        so_far = before
        for together in each.walk_passes():
            so_far += prod(together[-1].output_shape) * bool(blocks.intersection(together))
            most = max(most, so_far + _passed_on(together))
        if isinstance(each, Recomputed):
            output = prod(each.last.output_shape) * (each.last in kept)
            most, so_far = most + output, before + output
        before = so_far
    return most


def inference_numbers(network: Sequential) -> int:
    """Numbers for one sample: the most that outputs take at a time in inference."""
    return max(map(_passed_on, network.walk_passes(training=False)), default=0)


def _passed_on(together: tuple[Layer, ...]) -> int:
    """Numbers of the input and the output of a pass, or of their gradients, and of what a branch holds."""
    ends = prod(together[0].input_shape), prod(together[-1].output_shape)
    in_branch = any(layer.context.level for layer in together)
    return sum(ends) + max(ends) * in_branch
