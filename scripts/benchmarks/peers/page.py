"""The results as Markdown tables, which are also readable in a terminal, and as a whole page."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from shared.markdown import markdown

from cnn.support.text import figure, milliseconds, short
from peers import memory
from peers.contenders import CONTENDERS, OURS, PYTORCH
from peers.networks import NETWORKS
from peers.results import Results
from peers.task import PHASES
from peers.timing import (
    BLOCK,
    CUDA_COPY_BYTES,
    CUDA_PRODUCT_SIZE,
    LONG,
    PATIENCE,
    PAUSE,
    PRODUCT_SIZE,
    Figure,
)

HEADINGS = ("batch", "peer", "ms", "quartiles", "images/s", "x PyTorch", "product", "copy", "first, s")
LEGEND = """\
ms: median over the turns, and quartiles. x PyTorch: speed relative to the fastest mode of PyTorch at this
batch size, which is marked with *; median over the rounds.
product, copy: the speed of a large product and, at batch 1, of a copy on the same machine is 100 %.
first: the first step or inference, including building, compiling and everything else that happens only once.
"""
SUMMARY = """\
The compiled kernels and the fastest mode of PyTorch in each setting; x PyTorch: how many times as fast ours
is, median over the rounds, and quartiles.
"""
SHARES = """\
The operations a second of a step or an inference, as a share of those of a large product that was measured
in the same process.
"""
METHOD = f"""\
A training step gathers a batch of bytes that are already in memory, converts them to floats from 0 to 1,
and runs forward, cross entropy, backward, and an SGD update with momentum 0.9. Inference runs forward on
floats. Everything is in float32, except the notebook's loops. The networks are those of `cnn.models`,
except `example`, which is the network of PyTorch's MNIST example without its dropout, and `vgg`, which has
six 3x3 convolutions with 64 to 256 channels and two dense layers. In training, normalizations use the batch,
and the first convolution of the airbench networks is frozen.

Before anything is timed, all libraries start from the same weights, with random biases, and the same random
batch in each setting. They must give the same outputs and loss, and the same changes of the weights and
statistics after two steps; ours and PyTorch must also give the same gradients. The notebook's loops have a
different update, so only their outputs and loss are compared.

There is one process for each number of threads, in which all libraries take turns, round by round. A turn is
a pause of {PAUSE} s, in which the threads of the other libraries go to sleep, one step to wake up unless it
takes longer than {LONG} s, and then steps for about {BLOCK} s. A library that has used {PATIENCE:g} s takes
no more turns after its fifth. The `signal` kernels and the loops, which process one image at a time, are
timed only if a step takes less than a second.

The operations of a step are those of its matrix products and normalizations, forward and for both gradients,
without the input gradient of the first layer that is trained. Their share is relative to a product of
{PRODUCT_SIZE}x{PRODUCT_SIZE} matrices with the same number of threads. The share of the copy, at batch 1,
counts only the bytes of the parameters: they are read in the forward pass and for the input gradients (except
the first layer's), the gradient is written, and the update reads three vectors and writes two. The copy is of
an array as large as the parameters, on one thread; bytes read and written are counted. If that array fits
into a cache, the copy runs at the speed of the cache.

PyTorch runs its own layers, batch first, with `torch.optim.SGD`: eager in its default memory format (NCHW),
eager in the format `channels_last`, and in the default format through `torch.compile` with fixed shapes. JAX
runs one jitted step whose weights and velocity are donated. Both use logits and cross entropy, which for two
classes is equivalent to the notebook's softmax and binary cross entropy. Compiled code that is in the caches
from earlier runs is not compiled again, so the first step is then shorter.
"""
METHOD_ON_CUDA = f"""\
A training step gathers a batch of bytes that are already on the GPU, converts them to floats from 0 to 1,
and runs forward, cross entropy, backward, and an SGD update with momentum 0.9. Inference runs forward on
floats. `notebook` and `lenet5` are from `cnn.models`; `example` is the network of
PyTorch's MNIST example without its dropout; `vgg` has six 3x3 convolutions with 64 to 256 channels and two
dense layers, for images of 3x32x32.

Before anything is timed, all libraries start from the same weights, with random biases, and the same random
batch in each setting. They must give the same outputs and loss, and the same changes of the weights after
two steps; ours and PyTorch eager must also give the same gradients.

All libraries take turns in one process, round by round. A turn is a pause of {PAUSE} s, one step to wake up
unless it takes longer than {LONG} s, and then as many steps as take about {BLOCK} s if each is waited for.
They are queued on the GPU one after the other; the device is synchronized before the clock starts and before
it stops, but not in between. A library that has used {PATIENCE:g} s takes no more turns after its fifth.

The operations of a step are those of its matrix products, forward and for both gradients, without the input
gradient of the first layer. Their share is relative to a product of {CUDA_PRODUCT_SIZE}x{CUDA_PRODUCT_SIZE}
matrices. The share of the copy, at batch 1, counts only the bytes of the parameters: they are read in the
forward pass and for the input gradients (except the first layer's), the gradient is written, and the update
reads three vectors and writes two. The copy is of {CUDA_COPY_BYTES >> 20} MiB; bytes read and written are
counted.

PyTorch runs its own layers, batch first, in its default memory layout, with `torch.optim.SGD`;
`torch.compile` uses its mode `max-autotune`, with fixed shapes and the whole step compiled as one, or all but
the update if the network has normalizations; JAX runs one jitted step whose weights and velocity are donated.
They use logits and cross entropy, which for two
classes is equivalent to the notebook's softmax and binary cross entropy. Compiled code that is in the
caches from earlier runs is not compiled again, so the first step is then shorter.
"""
PRECISION = {
    "float32": "Everything is in float32.\n",
    "bfloat16": """\
Activations and products are in bfloat16; parameters, their gradients, the update and the loss are in float32.
Ours is built with `dtype="bfloat16"`; PyTorch runs forward and loss in `torch.autocast`, with parameters in
float32. JAX is left out.
""",
}
MEMORY = f"""\
Growth of a process while it builds a network and runs {memory.STEPS} training steps: its peak minus its size
after the imports, in MB. Each value is from a separate process. The ratio is ours, compiled, to the mode of
PyTorch that grows least.
"""


def make_page(results: Results, command: str, picture: Path | None, page: Path) -> str:
    """A page for docs/, to be put at ``page``."""
    if results.on_cuda:
        title, method, packages = (
            "# Comparison with PyTorch and JAX on a GPU\n",
            f"{METHOD_ON_CUDA}\n{PRECISION[results.dtype]}",
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
        tf32 = f"products of float32 {'with' if device['tf32'] else 'without'} TF32"
        hardware = (
            f"{device['gpu']}, compute capability {device['compute_capability']}, driver {device['driver']}, "
            f"{tf32 if results.dtype == 'float32' else f'networks in {results.dtype}'}"
        )
        numpy = {"CuPy": f"{device['cupy']} with {device['runtime']}", "NumPy": device["numpy"]}
    else:
        held = ", all libraries held to AVX2" if machine["avx2"] else ""
        hardware = f"{device['processor']}, {device['cores']} cores{held}"
        numpy = {"NumPy": f"{device['numpy']} with {device['blas']}"}
    versions = numpy | machine["peers"]
    libraries = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    return (
        f"Machine: {hardware}; {machine['system']}; "
        f"Python {machine['python']}, xpcnn {machine['xpcnn']}, {libraries}; {machine['time'][:10]}; "
        f"{results.rounds} rounds.\n"
    )


def make_tables(results: Results, width: int | None = None) -> str:
    """The summary, the memory, and a table for each network, phase and number of threads.

    Tables wider than ``width`` are split.
    """
    parts = []
    figures = sorted(results.figures, key=lambda f: (list(NETWORKS).index(f.network), PHASES.index(f.phase)))
    if compared := [f for f in figures if f.peer == OURS and f.pytorch]:
        parts += ["## Ours and PyTorch\n", SUMMARY, summary_table(compared, figures, width)]
        parts += ["## Share of the machine's peak\n", SHARES, share_table(compared, figures, width)]
    if results.memory:
        parts += ["## Memory\n", MEMORY, memory_table(results, width)]
    blocks: dict[str, list[Figure]] = {}
    for f in figures:
        threads = "" if f.threads is None else f", {f.threads} thread{'s' if f.threads > 1 else ''}"
        blocks.setdefault(f"### {f.network}, {f.phase}{threads}\n", []).append(f)
    parts += ["## All figures\n", LEGEND]
    for heading, block in blocks.items():
        parts += [heading, speeds(block[0]), markdown(HEADINGS, list(timing_rows(block)), width, 2)]
    if results.absent:
        lines = (f"- {CONTENDERS[name].label}: not measured: {why}" for name, why in results.absent.items())
        parts.append("".join(f"{short(line, 110)}\n" for line in lines))
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
            fastest = (size, name) in found and found[size, name].pytorch == name
            yield [str(size), CONTENDERS[name].label + " *" * fastest, *cells]


def timing_cells(f: Figure) -> list[str]:
    """The cells that follow the batch size and the name of the contender."""
    return [
        milliseconds(f.seconds.median),
        f"{milliseconds(f.seconds.low)} to {milliseconds(f.seconds.high)}",
        figure(f.images_per_second),
        "-" if f.times_pytorch is None else figure(f.times_pytorch.median),
        f"{f.product_share:.1%}",
        "-" if f.copy_share is None else f"{f.copy_share:.1%}",
        figure(f.first_seconds),
    ]


def peers_of(one: Figure, figures: Sequence[Figure]) -> Mapping[str, Figure]:
    """All figures of the same setting and phase."""

    def setting(f: Figure) -> tuple[object, ...]:
        return f.network, f.phase, f.threads, f.batch_size

    return {f.peer: f for f in figures if setting(f) == setting(one)}


def setting_headings(figures: Sequence[Figure]) -> list[str]:
    """Those of :func:`setting_cells`."""
    return ["network", "phase", "batch", *([] if figures[0].threads is None else ["threads"])]


def setting_cells(f: Figure) -> list[str]:
    """The cells that say what was measured; there are no threads on a GPU."""
    return [f.network, f.phase, str(f.batch_size), *([] if f.threads is None else [str(f.threads)])]


def summary_table(compared: Sequence[Figure], figures: Sequence[Figure], width: int | None) -> str:
    """A row for each setting and phase: ours, and the fastest mode of PyTorch."""
    rows = []
    for ours in compared:
        theirs, ratio = peers_of(ours, figures)[ours.pytorch], ours.times_pytorch
        times = [milliseconds(f.seconds.median) for f in (ours, theirs)]
        ratios = [figure(ratio.median), f"{figure(ratio.low)} to {figure(ratio.high)}"]
        rows.append([*setting_cells(ours), *times, CONTENDERS[ours.pytorch].label, *ratios])
    headings = [
        *setting_headings(compared),
        "ours, ms",
        "PyTorch, ms",
        "fastest mode",
        "x PyTorch",
        "quartiles",
    ]
    return markdown(headings, rows, width, 3)


def share_table(compared: Sequence[Figure], figures: Sequence[Figure], width: int | None) -> str:
    """A row for each setting and phase: what ours and the modes of PyTorch reach of a large product."""
    names = [name for name in (OURS, *PYTORCH) if any(f.peer == name for f in figures)]
    rows = []
    for ours in compared:
        found = peers_of(ours, figures)
        work = ours.product_share * ours.product_flops * ours.seconds.median  # operations
        shares = [f"{found[name].product_share:.1%}" if name in found else "-" for name in names]
        rows.append([*setting_cells(ours), figure(work / 1e9), figure(ours.product_flops / 1e9), *shares])
    headings = [
        *setting_headings(compared),
        "GFLOP",
        "product, GFLOP/s",
        *(CONTENDERS[name].label for name in names),
    ]
    return markdown(headings, rows, width, 3)


def memory_table(results: Results, width: int | None = None) -> str:
    """A row for each network, a column for each contender, and the ratio of ours to PyTorch's."""
    names = [name for name in CONTENDERS if any(found.peer == name for found in results.memory)]
    grown: dict[tuple[str, int], dict[str, int]] = {}
    for found in results.memory:
        grown.setdefault((found.network, found.batch_size), {})[found.peer] = found.bytes
    rows = []
    for (network, batch_size), by_name in grown.items():
        cells = [figure(by_name[name] / 1e6) if name in by_name else "-" for name in names]
        least = min((by_name[name] for name in PYTORCH if name in by_name), default=0)
        ratio = figure(by_name[OURS] / least) if least > 0 and OURS in by_name else "-"
        rows.append([network, str(batch_size), *cells, ratio])
    labels = [CONTENDERS[name].label for name in names]
    return markdown(["network", "batch", *labels, "ours / PyTorch"], rows, width, 2)
