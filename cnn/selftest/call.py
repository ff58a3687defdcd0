"""A call of a kernel: its arrays, the same in float64, and the same in mixed precision."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np

from backends import Backend
from backends.dtypes import is_half

HALVED = {"x", "y", "dy", "dx", "out", "others", "addend", "addend_grad", "out_weight"}
"""The arguments that have 16 bits in such a network: activations, and in ``fold`` the weight of a product."""

WITH_WEIGHT = (
    "conv2d", "conv2d_grad_input", "conv2d_activate", "conv2d_max_pool2d", "conv2d_moments",
    "conv2d_epilogue_grad",
)  # fmt: skip
HALVED_OF: dict[str, list[set[str]]] = {
    **{kernel: [HALVED | {"weight"}] for kernel in WITH_WEIGHT},
    "conv2d_grad_weight": [{"x", "dy"}],
    "sum_rows": [{"x"}],
    "matmul": [{"a", "b", "out"}, {"a", "b"}],
    "copy": [{"x", "out"}, {"x"}, {"out"}],
    "mix_targets": [],
}
"""The same for kernels where they are others; several sets for a kernel that is called in several ways."""


@dataclass(frozen=True)
class Call:
    """A call of a function of a backend, named by its path; arrays among its arguments are on the host."""

    name: str
    function: str
    arguments: dict[str, Any]

    def run(self, backend: Backend) -> dict[str, Any]:
        """All arrays after the call: those that it wrote, and those that it should have left alone."""
        with backend.active():
            arguments = {
                name: backend.asarray(value.copy()) if isinstance(value, np.ndarray) else value
                for name, value in self.arguments.items()
            }
            attrgetter(self.function)(backend)(**arguments)
            return {name: backend.to_host(value) for name, value in arguments.items() if backend.owns(value)}

    @property
    def kernel(self) -> str:
        """The name of the function without its path."""
        return self.function.rpartition(".")[2]

    def wide(self) -> "Call":
        """The same call with the same numbers in float64."""
        return self._with(
            lambda name, value: (
                value.astype(np.float64) if value.dtype == np.float32 or is_half(value) else value
            )
        )

    def in_16_bits(self, dtype: str) -> Iterator["Call"]:
        """The calls of a mixed-precision network in place of this one, whose floats are float32."""
        ways = HALVED_OF.get(self.kernel, [HALVED])
        for names in ways:

            def stored(name: str, value: Any, names: set[str] = names) -> Any:
                return value.astype(dtype) if name in names and value.dtype == np.float32 else value

            call = self._with(stored)
            if len(ways) > 1:
                call = replace(call, name=f"{call.name}, {', '.join(sorted(names))} in 16 bits")
            if any(isinstance(value, np.ndarray) and is_half(value) for value in call.arguments.values()):
                yield call

    def _with(self, change: Callable[[str, Any], Any]) -> "Call":
        """The same call with other arrays: ``change(name, array)``."""
        arguments = {
            name: change(name, value) if isinstance(value, np.ndarray) else value
            for name, value in self.arguments.items()
        }
        return replace(self, arguments=arguments)
