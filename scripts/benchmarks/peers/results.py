"""All that was found, as plain data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shared import machine

import backends
from peers.timing import Figure

FORMAT, SCHEMA = "xpcnn peers", 2


@dataclass(frozen=True)
class Memory:
    """What a process grew by in a training."""

    network: str
    batch_size: int
    peer: str
    bytes: int


@dataclass(frozen=True)
class Results:
    """The figures and the machine they were measured on."""

    machine: dict[str, Any]
    rounds: int
    absent: dict[str, str]  # by a contender's name: why
    figures: Sequence[Figure]
    memory: Sequence[Memory]
    scaling: Sequence[Figure]  # of the picture
    dtype: str = "float32"  # of activations and products

    @property
    def on_cuda(self) -> bool:
        """Whether a GPU was measured."""
        return "gpu" in self.machine["device"]

    def as_plain(self) -> dict[str, Any]:
        """For JSON: the schema's number, and everything measured."""
        return {"format": FORMAT, "schema": SCHEMA, **asdict(self)}


def describe_machine(device: str = "cpu", tf32: bool = False, avx2: bool = False) -> dict[str, Any]:
    """Hardware, system and versions, and whether all libraries are held to AVX2."""
    return machine.describe_machine(backends.get(device, tf32=tf32)) | {"avx2": avx2}
