"""Estimates the memory of a training run, and suggests a batch size after running out of memory."""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from backends import Backend
from cnn.data.dataset import Dataset
from cnn.data.readers.mapped import mapping
from cnn.data.sources import stored_dtype
from cnn.inspection import summary
from cnn.layers.planning import inference_bytes, training_bytes
from cnn.layers.recomputation import is_recomputable, layers_of
from cnn.network import EVALUATION_BATCH, Network
from cnn.support.errors import OutOfMemory, out_of_memory
from cnn.training.optimizers import Optimizer

INDEX_BYTES = 8
COPIES = 4  # of 16-bit activations that a portable kernel makes in float32


@dataclass(frozen=True)
class Memory:
    """Bytes on the device for the arrays of a training run, without small arrays."""

    data: int  # both data sets and the order of the images
    parameters: int  # including their gradients
    optimizer: int
    guard: int  # NaNGuard's copy of the last finite state
    activations: int
    workspace: int  # of the kernels

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum(asdict(self).values())

    @property
    def at_most(self) -> int:
        """An upper bound: 1.5 times what grows with the batch, for temporary arrays and rounding of pools."""
        return self.total + (self.activations + self.workspace) // 2


def memory(
    network: Network,
    optimizer: Optimizer,
    train: Dataset,
    test: Dataset | None,
    batch_size: int,
    stream: bool = False,
    accumulate: int = 1,
    recompute: bool = False,
) -> Memory:
    """Estimate the memory for training ``network``, which is built, on ``train`` and testing it on ``test``.

    With ``stream`` only two batches of ``train`` are on the device at a time; ``accumulate``
    and ``recompute`` are as in ``fit``.
    """
    tests = [] if test is None else [test]
    itemsize = network.itemsize
    batch = min(batch_size, len(train))
    part = -(-batch // accumulate)
    largest_batch = max([part, *(min(EVALUATION_BATCH, len(part)) for part in tests)])
    outputs = training_bytes(network, part, recompute), inference_bytes(network, largest_batch)
    inputs = prod(train.shape) * itemsize * (part + largest_batch)
    vectors = len(optimizer.state_names) + 2 + (accumulate > 1)  # a change, a scratch vector and the sum
    return Memory(
        data=sum(_data_bytes(part, network, len(part)) for part in tests)
        + _data_bytes(train, network, 2 * batch if stream else len(train)),
        parameters=summary.parameter_bytes(network),
        optimizer=vectors * network.flat.value.nbytes,
        guard=(1 + len(optimizer.state_names)) * network.flat.value.nbytes,
        activations=max(outputs) + _kept_bytes(network, recompute) * part + inputs,
        workspace=_workspace_bytes(network, largest_batch, part),
    )


def _kept_bytes(network: Network, recompute: bool) -> int:
    """Bytes that training keeps for one sample besides outputs; blocks that are recomputed share them."""
    kept = 0
    shared: dict[int, int] = {}  # by the position in a block
    for each in network.passes:
        sizes = {layer: layer.kept_bytes for layer in layers_of(each)}
        if not (recompute and is_recomputable(each)):
            kept += sum(sizes.values())
            continue
        for position, layer in enumerate(layers_of(each)):
            shared[position] = max(shared.get(position, 0), sizes[layer])
    return kept + sum(shared.values())


def _workspace_bytes(network: Network, batch: int, trained: int) -> int:
    """Bytes of scratch of the kernels, which in 16 bits is float32 and next to copies, or has 16 bits too."""
    in_master_dtype = network.workspace_bytes(batch, trained)
    if network.dtype == network.master_dtype:
        return in_master_dtype
    if network.backend.kernels.takes_halves:
        return in_master_dtype * network.itemsize // network.master_itemsize
    ends = ((together[0].input_shape, together[-1].output_shape) for together in network.walk_passes())
    largest = max((prod(shape) for pair in ends for shape in pair), default=0)
    return in_master_dtype + COPIES * largest * network.master_itemsize * batch


def fitting_batch_size(
    network: Network,
    optimizer: Optimizer,
    train: Dataset,
    test: Dataset | None,
    batch_size: int,
    stream: bool,
    available: int,
    accumulate: int = 1,
    recompute: bool = False,
) -> int:
    """The largest half, quarter, ... of ``batch_size`` that certainly fits in ``available`` bytes, or 0."""
    size = min(batch_size, len(train)) // 2
    options = stream, accumulate, recompute
    while size and memory(network, optimizer, train, test, size, *options).at_most > available:
        size //= 2
    return size


def advised(
    error: OutOfMemory | MemoryError,
    network: Network,
    optimizer: Optimizer,
    train: Dataset,
    test: Dataset | None,
    batch_size: int,
    stream: bool,
    accumulate: int = 1,
    recompute: bool = False,
) -> OutOfMemory:
    """``error`` with advice on a batch size that should fit."""
    full = out_of_memory(error)
    available = _available(network.backend, full)
    if not available:
        return full
    data, options = (train, test, batch_size), (accumulate, recompute)
    size = fitting_batch_size(network, optimizer, *data, stream, available, *options)
    return out_of_memory(full, _advice(batch_size, min(batch_size, len(train)), size))


def _advice(requested: int, tried: int, fitting: int) -> str:
    """Advice after a batch of ``tried`` images did not fit; one of ``fitting`` (0: unknown) should."""
    if fitting:
        return f"a batch of {fitting} should fit (it was {requested})"
    smaller = "a smaller network, or smaller or fewer images"
    if tried == 1:
        return f"the batch size was 1 already: use {smaller}"
    size = max(1, tried // 8)
    return f"no batch size is certain to fit; try a batch of {size} (it was {requested}), or {smaller}"


def _available(backend: Backend, full: OutOfMemory) -> int:
    """The bytes that this process could use on the device; 0 if unknown."""
    if full.device != backend.name:  # the host's memory ran out, not the GPU's
        return 0
    memory = backend.memory()
    return memory["total"] if full.free is None else full.free + memory["used"]


def _data_bytes(part: Dataset, network: Network, images: int) -> int:
    """Bytes of ``images`` images with their targets and weights on the device, and of the order of all."""

    def each(array: Any) -> int:
        stored = stored_dtype(array, network.dtype)
        if mapping(array) is not None and array.dtype == stored and network.backend.owns(array):
            return 0  # the numbers stay in their file
        return int(prod(array.shape[1:]) * stored.itemsize)

    return images * sum(map(each, part.samples.arrays)) + len(part) * INDEX_BYTES
