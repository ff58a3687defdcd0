"""Copies data to a GPU while it computes."""

from math import prod
from typing import Any

import numpy as np

from backends.errors import OutOfMemory
from backends.memory import Array, Device, Upload


class PinnedUpload(Upload):
    """Copies through pinned memory on a separate stream."""

    def __init__(self, device: Device, *targets: Array) -> None:
        self.device = device
        self.targets = targets
        cuda = device.xp.cuda
        self.host = [_pinned(cuda, target) for target in targets]
        with device.active():
            self._stream = cuda.Stream(non_blocking=True)
            self._released, self._sent = cuda.Event(disable_timing=True), cuda.Event(disable_timing=True)

    def release(self) -> None:
        with self.device.active():
            self._released.record()  # on the current stream

    def claim(self) -> None:
        with self.device.active():
            self._sent.synchronize()

    def send(self) -> None:
        with self.device.active():
            self._stream.wait_event(self._released)
            for host, target in zip(self.host, self.targets, strict=True):
                self.device.crossings += 1
                target.set(host, stream=self._stream)
            self._sent.record(self._stream)

    def arrive(self) -> None:
        with self.device.active():
            self.device.xp.cuda.get_current_stream().wait_event(self._sent)


def _pinned(cuda: Any, target: Array) -> Any:
    try:
        memory = cuda.alloc_pinned_memory(target.nbytes)
    except Exception as error:
        if "cudaErrorMemoryAllocation" not in str(error):
            raise
        raise OutOfMemory("the host", target.nbytes, None, "use smaller batches") from error
    return np.frombuffer(memory, target.dtype, prod(target.shape)).reshape(target.shape)
