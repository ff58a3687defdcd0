"""The CUDA sources as machine code: for which GPUs and dtypes they are compiled, and what must hold of it."""

import re

from backends.cuda.kernels.convolution import TILES
from backends.cuda.launch import NUMBERS, THREADS, definitions, sources
from helpers import nvrtc

TILED = [f"{name}_{tile}" for name in ("convolve", "convolve_pool", "convolve_back") for tile in TILES]
KERNELS = {
    concept: {*re.findall(r"__global__ void (\w+)\(", source), *(TILED if concept == "convolution" else [])}
    for concept, source in sources().items()
}
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")  # Turing, Ampere, Hopper, Blackwell
BUILDS = [  # losses and updates get float32 in mixed-precision networks
    (concept, dtype, architecture)
    for concept in KERNELS
    for dtype in NUMBERS
    if dtype in ("float32", "float64") or concept not in ("losses", "updates")
    for architecture in ARCHITECTURES
]


def _places(concept, dtype, architecture):
    return list(KERNELS).index(concept), list(NUMBERS).index(dtype), ARCHITECTURES.index(architecture)


# Half of them, among which is every pair of a concept, a dtype or an architecture. compile_kernels.py in
# tests/endurance takes all.
HALF = [build for build in BUILDS if sum(_places(*build)) % 2 == 0]


def require_registers(concept, dtype, architecture):
    """Compile a source; every kernel must keep its numbers in registers. -> how many each kernel has."""
    code, resources = nvrtc.compile_source(sources()[concept], architecture, definitions(dtype))
    assert set(resources) == KERNELS[concept]
    assert all(f".text.{name}".encode() in code for name in KERNELS[concept])
    spilled = {name: size for name, (_, size) in resources.items() if size}
    assert not spilled, f"bytes spilled: {spilled}"
    registers = {name: count for name, (count, _) in sorted(resources.items())}
    most = 65536 // THREADS  # which are shared by a block's threads
    assert max(registers.values()) <= most, f"more than {most} registers: {registers}"
    return registers
