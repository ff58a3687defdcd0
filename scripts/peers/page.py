"""The results for people: tables in Markdown that read as well on a screen, and a whole page of them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cnn.support.text import figure, milliseconds, short
from peers import memory
from peers.contenders import CONTENDERS
from peers.networks import NETWORKS
from peers.results import Results
from peers.task import PHASES
from peers.timing import BLOCK, CUDA_COPY_BYTES, CUDA_PRODUCT_SIZE, PATIENCE, PAUSE, PRODUCT_SIZE, Figure

HEADINGS = ("batch", "peer", "ms", "quartiles", "images/s", "x PyTorch", "product", "copy", "first, s")
LEGEND = """\
ms: median over the turns, and quartiles. x PyTorch: times as fast as PyTorch eager, the median of the rounds.
product, copy: share of what this machine's own product, and for one image its own copy, would allow.
first: the first step or inference, with building, compiling and all else that happens only once.
"""
METHOD = f"""\
A training step gathers a batch from bytes that lie ready in memory, makes floats from 0 to 1 of them, and
goes forward, through the cross entropy, backward, and through an update by SGD with momentum 0.9; inference
goes forward on floats. Everything is in float32, but for the notebook's loops. `notebook` and `lenet5` are
`cnn.models`, `example` is the network of PyTorch's MNIST example without its dropout.

Before anything was timed, all started from the same weights, random biases included, on the same random
batch in every setting, and had to give the same loss and outputs, and after two steps the same changes of the
weights; ours and PyTorch the same gradients too. Of the notebook's loops, whose update is another, loss and
outputs are compared.

For each number of threads there is one process, in which all take turns, round by round. A turn is a pause
of {PAUSE} s, in which the other libraries' threads fall asleep, a step to wake up, and then steps for about
{BLOCK} s. Who has used {PATIENCE:g} s takes no more turns, after three. Who goes image by image, the `signal`
kernels and the loops, is timed where a step takes less than a second.

A step's operations are those of its products, forward and for both gradients, the first layer's without the
gradient of its input; their share is of a product of {PRODUCT_SIZE}x{PRODUCT_SIZE} matrices with as many
threads. The share of the copy, for one image, counts the parameters' bytes alone: read forward and, but for
the first layer's, for the gradient of the input; the gradient written; three vectors read and two written in
the update. The copy is of an array as large as the parameters, on one thread, its bytes read and written
counted. Where that array fits into a cache the copy runs at the cache's speed.

PyTorch runs its own layers, batch first, in its default layout, with `torch.optim.SGD`; `torch.compile` with
fixed shapes; JAX in one jitted step whose weights and velocity are donated. Both take the logits and the
cross entropy, which for two classes is what the notebook's softmax and binary cross entropy are.
What compilers find in their caches from earlier runs is not compiled again, and its first step is shorter.
"""
METHOD_ON_CUDA = f"""\
A training step gathers a batch from bytes that lie ready on the GPU, makes floats from 0 to 1 of them, and
goes forward, through the cross entropy, backward, and through an update by SGD with momentum 0.9; inference
goes forward on floats. Everything is in float32. `notebook` and `lenet5` are `cnn.models`, `example` is the
network of PyTorch's MNIST example without its dropout, `vgg` has six 3x3 convolutions with 64 to 256 channels
and two full connections, for images of 3x32x32.

Before anything was timed, all started from the same weights, random biases included, on the same random
batch in every setting, and had to give the same loss and outputs, and after two steps the same changes of the
weights; ours and PyTorch eager the same gradients too.

All take turns in one process, round by round. A turn is a pause of {PAUSE} s, a step to wake up, and then as
many steps as take about {BLOCK} s when each is waited for. They are given to the GPU one after the other: it
is waited for before the clock starts and before it stops, and not in between. Who has used {PATIENCE:g} s
takes no more turns, after three.

A step's operations are those of its products, forward and for both gradients, the first layer's without the
gradient of its input; their share is of a product of {CUDA_PRODUCT_SIZE}x{CUDA_PRODUCT_SIZE} matrices. The
share of the copy, for one image, counts the parameters' bytes alone: read forward and, but for the first
layer's, for the gradient of the input; the gradient written; three vectors read and two written in the
update. The copy is of {CUDA_COPY_BYTES >> 20} MiB, its bytes read and written counted.

PyTorch runs its own layers, batch first, in its default layout, with `torch.optim.SGD`; `torch.compile` in
its mode `max-autotune`, with fixed shapes and the whole step compiled as one; JAX in one jitted step whose
weights and velocity are donated. They take the logits and the cross entropy, which for two classes is what
the notebook's softmax and binary cross entropy are. What compilers find in their caches from earlier runs is
not compiled again, and its first step is shorter.
"""
MEMORY = f"""\
Growth of a process over building and {memory.STEPS} training steps at batch {memory.BATCH_SIZE}: its peak
less what it took after its imports, in MB, each in a process of its own.
"""


def make_page(results: Results, command: str, picture: Path | None, page: Path) -> str:
    """A page for docs/, to be put at ``page``."""
    if results.on_cuda:
        title, method, packages = "# Beside PyTorch and JAX on a GPU\n", METHOD_ON_CUDA, 'torch "jax[cuda12]"'
    else:
        title, method, packages = "# Beside PyTorch and JAX\n", METHOD, "torch jax"
    rerun = f"```\npython -m pip install {packages}\n{command}\n```\n"
    parts = [title, method, "Given again by\n", rerun, machine_line(results)]
    if picture:
        link = Path(os.path.relpath(picture, page.parent)).as_posix()
        parts.append(f"![Time of an image in training, over batch, image size, channels, threads]({link})\n")
    return "\n".join([*parts, make_tables(results)])


def machine_line(results: Results) -> str:
    """What it ran on, in a paragraph."""
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

    Tables that are wider than ``width`` come in parts.
    """
    blocks: dict[str, list[Figure]] = {}
    for f in sorted(results.figures, key=lambda f: (list(NETWORKS).index(f.network), PHASES.index(f.phase))):
        threads = "" if f.threads is None else f", {f.threads} thread{'s' if f.threads > 1 else ''}"
        blocks.setdefault(f"## {f.network}, {f.phase}{threads}\n", []).append(f)
    parts = [LEGEND]
    for heading, block in blocks.items():
        parts += [heading, speeds(block[0]), markdown(HEADINGS, list(timing_rows(block)), width, 2)]
    if results.absent:
        lines = (f"- {CONTENDERS[name].label}: absent: {why}" for name, why in results.absent.items())
        parts.append("".join(f"{short(line, 110)}\n" for line in lines))
    if results.memory:
        parts += ["## Memory\n", MEMORY, memory_table(results, width)]
    return "\n".join(parts)


def speeds(f: Figure) -> str:
    """What 100 % of the shares is."""
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
    """What stands behind the batch size and the contender's name."""
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


def markdown(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, names: int = 0
) -> str:
    """A table whose columns are aligned in the text too: words on the left, figures on the right.

    If it is wider than ``width`` it comes in parts, each of which begins with the first ``names`` columns.
    """
    columns = [
        list(aligned(column, left=column[0] in ("peer", "network")))
        for column in zip(headings, *rows, strict=True)
    ]
    parts = [columns[:names]]
    for column in columns[names:]:
        if width and len(parts[-1]) > names and row_width([*parts[-1], column]) > width:
            parts.append(columns[:names])
        parts[-1] = [*parts[-1], column]
    lines = (zip(*part, strict=True) for part in parts)
    return "\n".join("".join(f"| {' | '.join(line)} |\n" for line in part) for part in lines)


def row_width(columns: Sequence[Sequence[str]]) -> int:
    """The columns of a terminal that a row of the table takes."""
    return sum(len(column[0]) + 3 for column in columns) + 1


def aligned(column: Sequence[str], left: bool) -> Iterator[str]:
    """The heading, the line below it and the cells, all of the same width."""
    width = max(map(len, column))
    heading, *cells = (cell.ljust(width) if left else cell.rjust(width) for cell in column)
    yield heading
    yield "-" * width if left else "-" * (width - 1) + ":"
    yield from cells
