"""The results as Markdown tables, which are also readable in a terminal, and as a whole page."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from shared.markdown import markdown

from cnn.support.text import figure, milliseconds, short
from peers import memory
from peers.contenders import CONTENDERS
from peers.networks import NETWORKS
from peers.results import Results
from peers.task import PHASES
from peers.timing import BLOCK, CUDA_COPY_BYTES, CUDA_PRODUCT_SIZE, PATIENCE, PAUSE, PRODUCT_SIZE, Figure

HEADINGS = ("batch", "peer", "ms", "quartiles", "images/s", "x PyTorch", "product", "copy", "first, s")
LEGEND = """\
ms: median over the turns, and quartiles. x PyTorch: speed relative to PyTorch eager, median over the rounds.
product, copy: the speed of a large product and, at batch 1, of a copy on the same machine is 100 %.
first: the first step or inference, including building, compiling and everything else that happens only once.
"""
METHOD = f"""\
A training step gathers a batch of bytes that are already in memory, converts them to floats from 0 to 1,
and runs forward, cross entropy, backward, and an SGD update with momentum 0.9. Inference runs forward on
floats. Everything is in float32, except the notebook's loops. `notebook` and `lenet5` are from
`cnn.models`; `example` is the network of PyTorch's MNIST example without its dropout.

Before anything is timed, all libraries start from the same weights, with random biases, and the same random
batch in each setting. They must give the same outputs and loss, and the same changes of the weights after
two steps; ours and PyTorch must also give the same gradients. The notebook's loops have a different update,
so only their outputs and loss are compared.

There is one process for each number of threads, in which all libraries take turns, round by round. A turn
is a pause of {PAUSE} s, in which the threads of the other libraries go to sleep, one step to wake up, and
then steps for about {BLOCK} s. A library that has used {PATIENCE:g} s takes no more turns after its third.
The `signal` kernels and the loops, which process one image at a time, are timed only if a step takes less
than a second.

The operations of a step are those of its matrix products, forward and for both gradients, without the input
gradient of the first layer. Their share is relative to a product of {PRODUCT_SIZE}x{PRODUCT_SIZE} matrices
with the same number of threads. The share of the copy, at batch 1, counts only the bytes of the parameters:
they are read in the forward pass and for the input gradients (except the first layer's), the gradient is
written, and the update reads three vectors and writes two. The copy is of an array as large as the
parameters, on one thread; bytes read and written are counted. If that array fits into a cache, the copy
runs at the speed of the cache.

PyTorch runs its own layers, batch first, in its default memory layout, with `torch.optim.SGD`;
`torch.compile` uses fixed shapes; JAX runs one jitted step whose weights and velocity are donated. Both use
logits and cross entropy, which for two classes is equivalent to the notebook's softmax and binary cross
entropy. Compiled code that is in the caches from earlier runs is not compiled again, so the first step is
then shorter.
"""
METHOD_ON_CUDA = f"""\
A training step gathers a batch of bytes that are already on the GPU, converts them to floats from 0 to 1,
and runs forward, cross entropy, backward, and an SGD update with momentum 0.9. Inference runs forward on
floats. Everything is in float32. `notebook` and `lenet5` are from `cnn.models`; `example` is the network of
PyTorch's MNIST example without its dropout; `vgg` has six 3x3 convolutions with 64 to 256 channels and two
dense layers, for images of 3x32x32.

Before anything is timed, all libraries start from the same weights, with random biases, and the same random
batch in each setting. They must give the same outputs and loss, and the same changes of the weights after
two steps; ours and PyTorch eager must also give the same gradients.

All libraries take turns in one process, round by round. A turn is a pause of {PAUSE} s, one step to wake
up, and then as many steps as take about {BLOCK} s if each is waited for. They are queued on the GPU one
after the other; the device is synchronized before the clock starts and before it stops, but not in between.
A library that has used {PATIENCE:g} s takes no more turns after its third.

The operations of a step are those of its matrix products, forward and for both gradients, without the input
gradient of the first layer. Their share is relative to a product of {CUDA_PRODUCT_SIZE}x{CUDA_PRODUCT_SIZE}
matrices. The share of the copy, at batch 1, counts only the bytes of the parameters: they are read in the
forward pass and for the input gradients (except the first layer's), the gradient is written, and the update
reads three vectors and writes two. The copy is of {CUDA_COPY_BYTES >> 20} MiB; bytes read and written are
counted.

PyTorch runs its own layers, batch first, in its default memory layout, with `torch.optim.SGD`;
`torch.compile` uses its mode `max-autotune`, with fixed shapes and the whole step compiled as one; JAX runs
one jitted step whose weights and velocity are donated. They use logits and cross entropy, which for two
classes is equivalent to the notebook's softmax and binary cross entropy. Compiled code that is in the
caches from earlier runs is not compiled again, so the first step is then shorter.
"""
MEMORY = f"""\
Growth of a process while it builds a network and runs {memory.STEPS} training steps at batch
{memory.BATCH_SIZE}: its peak minus its size after the imports, in MB. Each value is from a separate
process.
"""


def make_page(results: Results, command: str, picture: Path | None, page: Path) -> str:
    """A page for docs/, to be put at ``page``."""
    if results.on_cuda:
        title, method, packages = (
            "# Comparison with PyTorch and JAX on a GPU\n",
            METHOD_ON_CUDA,
            'torch "jax[cuda12]"',
        )
    else:
        title, method, packages = "# Comparison with PyTorch and JAX\n", METHOD, "torch jax"
    rerun = f"```\npython -m pip install {packages}\n{command}\n```\n"
    parts = [title, method, "To measure again:\n", rerun, machine_line(results)]
    if picture:
        link = Path(os.path.relpath(picture, page.parent)).as_posix()
        parts.append(f"![Training time per image by batch size, image size, channels and threads]({link})\n")
    return "\n".join([*parts, make_tables(results)])


def machine_line(results: Results) -> str:
    """A paragraph about the machine and the versions of the libraries."""
    machine, device = results.machine, results.machine["device"]
    if results.on_cuda:
        hardware = (
            f"{device['gpu']}, compute capability {device['compute_capability']}, driver {device['driver']}, "
            f"products of float32 {'with' if device['tf32'] else 'without'} TF32"
        )
        numpy = {"CuPy": f"{device['cupy']} with {device['runtime']}", "NumPy": device["numpy"]}
    else:
        hardware = f"{device['processor']}, {device['cores']} cores"
        numpy = {"NumPy": f"{device['numpy']} with {device['blas']}"}
    versions = numpy | machine["peers"]
    libraries = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    return (
        f"Machine: {hardware}; {machine['system']}; "
        f"Python {machine['python']}, xpcnn {machine['xpcnn']}, {libraries}; {machine['time'][:10]}; "
        f"{results.rounds} rounds.\n"
    )


def make_tables(results: Results, width: int | None = None) -> str:
    """The legend, a table for each network, phase and number of threads, and one for memory.

    Tables wider than ``width`` are split.
    """
    blocks: dict[str, list[Figure]] = {}
    for f in sorted(results.figures, key=lambda f: (list(NETWORKS).index(f.network), PHASES.index(f.phase))):
        threads = "" if f.threads is None else f", {f.threads} thread{'s' if f.threads > 1 else ''}"
        blocks.setdefault(f"## {f.network}, {f.phase}{threads}\n", []).append(f)
    parts = [LEGEND]
    for heading, block in blocks.items():
        parts += [heading, speeds(block[0]), markdown(HEADINGS, list(timing_rows(block)), width, 2)]
    if results.absent:
        lines = (f"- {CONTENDERS[name].label}: not measured: {why}" for name, why in results.absent.items())
        parts.append("".join(f"{short(line, 110)}\n" for line in lines))
    if results.memory:
        parts += ["## Memory\n", MEMORY, memory_table(results, width)]
    return "\n".join(parts)


def speeds(f: Figure) -> str:
    """The speeds that the shares are relative to."""
    product = f"A large product: {figure(f.product_flops / 1e9)} GFLOP/s"
    copied = "a large copy" if f.threads is None else "a copy of the parameters"
    return f"{product}; {copied}: {figure(f.copy_bytes / 1e9)} GB/s.\n"


def timing_rows(block: Sequence[Figure]) -> Iterator[Sequence[str]]:
    """A row for each batch size and each contender that was timed at any of them."""
    found = {(f.batch_size, f.peer): f for f in block}
    names = [name for name in CONTENDERS if any(f.peer == name for f in block)]
    for size in sorted({f.batch_size for f in block}):
        for name in names:
            cells = timing_cells(found[size, name]) if (size, name) in found else ["-"] * 7
            yield [str(size), CONTENDERS[name].label, *cells]


def timing_cells(f: Figure) -> list[str]:
    """The cells that follow the batch size and the name of the contender."""
    return [
        milliseconds(f.seconds.median),
        f"{milliseconds(f.seconds.low)} to {milliseconds(f.seconds.high)}",
        figure(f.images_per_second),
        "-" if f.times_pytorch is None else figure(f.times_pytorch),
        f"{f.product_share:.1%}",
        "-" if f.copy_share is None else f"{f.copy_share:.1%}",
        figure(f.first_seconds),
    ]


def memory_table(results: Results, width: int | None = None) -> str:
    """A row for each network, a column for each contender."""
    found = {(m.network, m.peer): m.bytes for m in results.memory}
    networks = dict.fromkeys(network for network, _ in found)
    names = [name for name in CONTENDERS if any(peer == name for _, peer in found)]
    rows = [
        [
            network,
            *(figure(found[network, name] / 1e6) if (network, name) in found else "-" for name in names),
        ]
        for network in networks
    ]
    return markdown(["network", *(CONTENDERS[name].label for name in names)], rows, width, 1)
