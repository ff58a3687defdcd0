"""The parts in their order: what matters most comes first, since the time may end before the last."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """Something that a process of its own measures.

    Attributes
    ----------
    module, options
        ``measure(device, record, **options)`` of this module does it.
    share
        How much of the whole time the part may take at most.
    """

    name: str
    module: str
    share: float
    options: Mapping[str, Any] = field(default_factory=dict)


def gpu_tests(name: str, share: float, *paths: str, without: tuple[str, ...] = ()) -> Part:
    """The GPU tests below these paths of ``tests/``."""
    return Part(f"tests-{name}", "tests", share, {"paths": paths, "without": without})


def benchmark(
    network: str, batch_size: int, tf32: bool = False, compiled: bool = False, dtype: str = "float32"
) -> Part:
    """A network next to PyTorch eager, or next to torch.compile too."""
    kinds = ["-compiled"] * compiled + ["-tf32"] * tf32 + [f"-{dtype}"] * (dtype != "float32")
    options = {
        "network": network, "batch_size": batch_size, "tf32": tf32, "compiled": compiled, "dtype": dtype,
    }  # fmt: skip
    return Part(f"benchmark-{network}{''.join(kinds)}", "benchmark", 0.2 if compiled else 0.12, options)


KERNELS = (
    "backends/test_cuda_kernels.py",
    "backends/test_cuda_augmentation.py",
    "backends/test_kernels_everywhere.py",
    "backends/test_kernels.py",
)
PRODUCTS = ("backends/test_products.py", "backends/test_backends.py")
TRAINING = ("training/test_gpu.py",)
LAYERS = ("layers",)
SMALL, WIDE = ("notebook", "lenet5"), ("resnet20", "airbench94")  # networks
SIZES = {"notebook": 128, "lenet5": 512, "resnet20": 512, "airbench94": 512}  # the batch size of each

PARTS = {
    part.name: part
    for part in (
        Part("device", "device", 0.1),
        gpu_tests("kernels", 0.2, *KERNELS),
        Part("steps", "steps", 0.15),
        gpu_tests("training", 0.15, *TRAINING),
        *(benchmark(name, size) for name, size in SIZES.items()),
        *(benchmark(name, SIZES[name], compiled=True) for name in SMALL),
        Part("selftest", "selftest", 0.15),
        Part("memory", "memory", 0.1),
        *(benchmark(name, SIZES[name], tf32=True) for name in WIDE),
        *(benchmark(name, SIZES[name], dtype="bfloat16") for name in WIDE),
        Part("crossover", "crossover", 0.15),
        gpu_tests("products", 0.1, *PRODUCTS),
        *(benchmark(name, SIZES[name], compiled=True) for name in WIDE),
        *(benchmark(name, SIZES[name], tf32=True, compiled=True) for name in WIDE),
        *(benchmark(name, SIZES[name], compiled=True, dtype="bfloat16") for name in WIDE),
        gpu_tests("layers", 0.3, *LAYERS),
        gpu_tests("rest", 1.0, ".", without=(*KERNELS, *PRODUCTS, *TRAINING, *LAYERS, "repository")),
    )
}
