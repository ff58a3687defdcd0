"""Host memory that is copied to the same arrays of a device again and again."""

from typing import TYPE_CHECKING, Any

import numpy as np

from backends.buffer import Array

if TYPE_CHECKING:
    from backends.backend import Backend


class Upload:
    """``host`` has an array for each of ``targets`` on the device; :meth:`send` copies them.

    A device that can do so copies while it computes, so the order is: ``release`` once the work that still
    reads the targets has been queued, ``claim`` before the host's arrays are written, ``send``, and
    ``arrive`` before work that reads what was sent is queued. Here everything is done at once.
    """

    def __init__(self, backend: "Backend", *targets: Array) -> None:
        self.backend = backend
        self.targets = targets
        self.host: list[Any] = [np.zeros(target.shape, target.dtype) for target in targets]

    def release(self) -> None:
        """Let the next copy begin when all that is queued by now is done."""

    def claim(self) -> None:
        """Wait until the host's arrays may be written again."""

    def send(self) -> None:
        """Copy the host's arrays to the targets."""
        for host, target in zip(self.host, self.targets, strict=True):
            self.backend.asarray(host, out=target)

    def arrive(self) -> None:
        """Let work that is queued from now on find there what was sent."""
