"""Single layers next to PyTorch's: python scripts/benchmarks/bench_layers.py [--help].

For each convolution and dense layer, the output and both gradients are first compared with PyTorch's. Then
ours, PyTorch's (NCHW and channels_last) and a large matrix product take turns, round by round. With one
thread the clock is the processor time of that thread, so other work on the machine hardly counts. With more
threads it is the time on the wall, which needs a quiet machine.

A share is relative to the large product of the same round. "x PyTorch" is how many times as fast ours is as
PyTorch in its faster format. All are medians over the rounds, and quartiles.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from shared.markdown import markdown
from shared.options import Parser, whole
from shared.passes import GRAD_INPUT, PASSES, Convolution, Layer, Product, limit_pytorch, require_same

import backends
from backends.cpu.threads import available_cores
from cnn.inspection.timing import Spread
from cnn.support.errors import ArgumentError
from cnn.support.files import write_json
from cnn.support.outputs import JSON, require_output
from cnn.support.terminal import screen_width
from cnn.support.text import figure

PRODUCT_SIZE = 768  # rows and columns of the large product
BLOCK = 0.02  # seconds: as many calls are timed at once as this takes
PAUSE = 0.1  # seconds before a turn with several threads: idle threads of another library go on spinning
OURS, LARGE_PRODUCT = "ours", "product"
FORMATS = {"contiguous_format": "NCHW", "channels_last": "channels_last"}  # PyTorch's memory formats

LAYERS: dict[str, Layer] = {
    "notebook-conv": Convolution(1, 5, 28),
    "lenet5-conv1": Convolution(1, 6, 28, kernel=5, padding=2),
    "lenet5-conv2": Convolution(6, 16, 14, kernel=5),
    "example-conv1": Convolution(1, 32, 28),
    "example-conv2": Convolution(32, 64, 26),
    "airbench-whitening": Convolution(3, 24, 32, kernel=2),
    "airbench-24-64": Convolution(24, 64, 31, padding=1),
    "airbench-64-64": Convolution(64, 64, 15, padding=1),
    "airbench-64-128": Convolution(64, 128, 15, padding=1),
    "airbench-64-256": Convolution(64, 256, 15, padding=1),
    "airbench-128-128": Convolution(128, 128, 7, padding=1),
    "airbench-256-256": Convolution(256, 256, 7, padding=1),
    "airbench-256-256-on-3": Convolution(256, 256, 3, padding=1),
    "resnet20-3-16": Convolution(3, 16, 32, padding=1),
    "resnet20-16-16": Convolution(16, 16, 32, padding=1),
    "resnet20-16-32-stride2": Convolution(16, 32, 32, stride=2, padding=1),
    "resnet20-16-32-1x1": Convolution(16, 32, 32, kernel=1, stride=2),
    "resnet20-32-32": Convolution(32, 32, 16, padding=1),
    "resnet20-32-64-stride2": Convolution(32, 64, 16, stride=2, padding=1),
    "resnet20-32-64-1x1": Convolution(32, 64, 16, kernel=1, stride=2),
    "resnet20-64-64": Convolution(64, 64, 8, padding=1),
    "mobilenet-128-128-1x1": Convolution(128, 128, 16, kernel=1),
    "vgg-32-32": Convolution(32, 32, 32, padding=1),
    "vgg-64-128": Convolution(64, 128, 8, padding=1),
    "dense-400-120": Product(400, 120),
    "dense-256-256": Product(256, 256),
    "dense-3125-100": Product(3125, 100),
    "dense-9216-128": Product(9216, 128),
}


@dataclass(frozen=True)
class Row:
    """A pass of a layer; ratios and shares are medians over the rounds, with quartiles."""

    layer: str
    description: str
    pass_name: str
    flops: int
    product_flops: Spread  # operations a second of the large product
    seconds: dict[str, Spread]  # of ours and of PyTorch in each format
    shares: dict[str, Spread]
    fastest: str  # PyTorch's format
    ratio: Spread


def main() -> None:
    """Compare the layers that were chosen."""
    parser = make_parser()
    options = parser.parse_args()
    try:
        written = [require_output(options.json, JSON)] if options.json else []
        backend = backends.get("cpu", threads=options.threads)
    except ArgumentError as error:
        parser.error(str(error))
    limit_pytorch(options.threads)
    clock = Clock(time.thread_time, 0) if options.threads == 1 else Clock(time.perf_counter, PAUSE)
    rows: list[Row] = []
    for name in options.layers:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        rows += compare(name, options.batch_size, backend, clock, options.rounds)
    print(f"{backend.describe()['processor']}, threads: {options.threads}, batch {options.batch_size}\n")
    print(make_table(rows, screen_width(sys.stdout)))
    if options.json:
        head = {"device": backend.describe(), "threads": options.threads, "batch_size": options.batch_size}
        write_json(options.json, head | {"rounds": options.rounds, "rows": [asdict(row) for row in rows]})
    for sentence in written:
        print(sentence, file=sys.stderr)


def make_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    names = f"layers, or the beginnings of their names, of {', '.join(LAYERS)} (default: all)"
    add("--layers", type=beginning_with, default=list(LAYERS), metavar="NAMES", help=names)
    add("--batch-size", type=whole(), default=128, help="images a step (default: 128)")
    add("--rounds", type=whole(), default=9, help="how often all take turns (default: 9)")
    add("--threads", type=whole(available_cores()), default=1, help="threads of both libraries (default: 1)")
    add("--json", type=Path, metavar="FILE", help="write all figures, for programs")
    return parser


def beginning_with(text: str) -> list[str]:
    """The layers whose names begin with one of these, in the order of the table."""
    wanted = text.split(",")
    for beginning in wanted:
        if not any(name.startswith(beginning) for name in LAYERS):
            raise argparse.ArgumentTypeError(
                f"no layer's name begins with {beginning!r}: expected some of {', '.join(LAYERS)}"
            )
    return [name for name in LAYERS if name.startswith(tuple(wanted))]


@dataclass(frozen=True)
class Clock:
    """Seconds, and a pause before each turn."""

    now: Callable[[], float]
    pause: float

    def seconds(self, call: Callable[[], object], times: int) -> float:
        """Seconds of one of so many calls."""
        start = self.now()
        for _ in range(times):
            call()
        return (self.now() - start) / times

    def calls_a_turn(self, call: Callable[[], object]) -> int:
        """How many calls take BLOCK."""
        call()
        return max(1, ceil(BLOCK / max(self.seconds(call, 1), 1e-9)))

    def take_turns(self, calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
        """Seconds of each call in each round."""
        times = {name: self.calls_a_turn(call) for name, call in calls.items()}
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                time.sleep(self.pause)
                call()  # brings its own numbers into the caches
                taken[name].append(self.seconds(call, times[name]))
        return taken


def compare(
    name: str, batch_size: int, backend: backends.Backend, clock: Clock, rounds: int
) -> Iterator[Row]:
    """A row for each pass of the layer, after a check that all compute the same."""
    layer = LAYERS[name]
    given = layer.numbers(batch_size)
    ours = layer.ours(backend.kernels, given)
    theirs = {layout: layer.theirs(layout, given) for layout in layer.layouts}
    wanted = [one for one in PASSES if one != GRAD_INPUT or not is_first(layer)]
    require_same(name, wanted, ours, theirs)
    for one in wanted:
        calls = {LARGE_PRODUCT: large_product(), OURS: ours[one]}
        calls |= {layout: passes[one] for layout, passes in theirs.items()}
        taken = clock.take_turns(calls, rounds)
        yield make_row(name, one, layer.flops(batch_size), taken)


def is_first(layer: Layer) -> bool:
    """Whether the layer's input is an image, whose gradient no training step needs."""
    return isinstance(layer, Convolution) and layer.channels <= 3


def large_product() -> Callable[[], object]:
    """The product that shows what a core gives at the moment."""
    a, b = np.random.default_rng(0).random((2, PRODUCT_SIZE, PRODUCT_SIZE), dtype=np.float32)
    out = np.empty_like(a)
    return lambda: np.dot(a, b, out=out)


def make_row(name: str, one: str, flops: int, taken: Mapping[str, Sequence[float]]) -> Row:
    """The figures of a pass, from the seconds of its rounds."""
    product = [2 * PRODUCT_SIZE**3 / seconds for seconds in taken[LARGE_PRODUCT]]
    contenders = {who: seconds for who, seconds in taken.items() if who != LARGE_PRODUCT}
    spreads = {who: Spread.of(seconds) for who, seconds in contenders.items()}
    fastest = min((who for who in spreads if who != OURS), key=lambda who: spreads[who].median)
    return Row(
        layer=name,
        description=str(LAYERS[name]),
        pass_name=one,
        flops=flops,
        product_flops=Spread.of(product),
        seconds=spreads,
        shares={
            who: Spread.of([flops / own / most for own, most in zip(seconds, product, strict=True)])
            for who, seconds in contenders.items()
        },
        fastest=fastest,
        ratio=Spread.of([theirs / own for own, theirs in zip(taken[OURS], taken[fastest], strict=True)]),
    )


def make_table(rows: Sequence[Row], width: int | None = None) -> str:
    """GFLOP/s of all, the share of the large product that each reaches, and the ratio."""
    headings = ["layer", "shape", "pass", "product", OURS, *FORMATS.values()]
    headings += [f"{who}, share" for who in (OURS, *FORMATS.values())] + ["x PyTorch", "quartiles"]
    return markdown(headings, [cells(row) for row in rows], width, names=3)


def cells(row: Row) -> list[str]:
    """A line of the table."""
    formats = (OURS, *FORMATS)
    speeds = [gflops(row.flops, row.seconds.get(who)) for who in formats]
    shares = [f"{row.shares[who].median:.2f}" if who in row.shares else "-" for who in formats]
    ratio = [f"{row.ratio.median:.2f}", f"{row.ratio.low:.2f} to {row.ratio.high:.2f}"]
    product = figure(row.product_flops.median / 1e9)
    return [row.layer, row.description, row.pass_name, product, *speeds, *shares, *ratio]


def gflops(flops: int, seconds: Spread | None) -> str:
    """A speed, or a dash if it was not measured."""
    return "-" if seconds is None else figure(flops / seconds.median / 1e9)


if __name__ == "__main__":
    main()
