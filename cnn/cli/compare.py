"""``cnn compare``."""

from pathlib import Path
from typing import Annotated

import typer

from cnn import comparison
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Dtype, Model, Winograd, choices, given
from cnn.cli.output import Status, print_json, say
from cnn.comparison.measure import ROUNDS
from cnn.comparison.plot import draw, require_drawing
from cnn.comparison.saved import as_plain
from cnn.comparison.table import show
from cnn.runs.setting import cut
from cnn.support.errors import ArgumentError
from cnn.support.outputs import COMPARISON, require_output
from cnn.support.text import printable
from cnn.training import defaults

OF_MEASURING = (
    "model", "batch_size", "device", "kernels", "threads", "dtype", "winograd", "rounds", "sweep", "save",
)  # fmt: skip


@app.command(
    epilog=examples(
        "cnn compare",
        "cnn compare --device cpu,cuda --model notebook --batch-size 32",
        "cnn compare --kernels portable,signal --threads 1,2",
        "cnn compare --sweep --save laptop.json",
        "cnn compare laptop.json workstation.json --plot crossover.png",
    )
)
def compare(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            readable=False,
            help="Saved comparisons to show next to each other, instead of measuring.",
            show_default=False,
        ),
    ] = None,
    model: Model = defaults.MODEL,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = defaults.BATCH_SIZE,
    device: Annotated[
        str | None,
        typer.Option(
            help="Devices, separated by commas, as in cpu,cuda.",
            show_default="all that work",
            autocompletion=lambda: choices("device"),
        ),
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="Kernel sets, separated by commas, as in portable,signal.",
            show_default="each device's best",
            autocompletion=lambda: choices("kernels"),
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Thread counts of the CPU, separated by commas, as in 1,2.", show_default="all cores"
        ),
    ] = None,
    dtype: Dtype = DEFAULT.dtype,
    winograd: Winograd = DEFAULT.winograd,
    rounds: Annotated[int, typer.Option(help="How often each setup is timed, in turns.")] = ROUNDS,
    sweep: Annotated[
        bool,
        typer.Option(
            "--sweep",
            help="Time all batch sizes from 1 to 1,024, instead of four of them.",
            show_default=False,
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Write the measurements here, to compare with another machine's; an earlier comparison in "
            "this file is overwritten.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Draw images a second over batch size: a PNG, and an SVG next to it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare devices, kernel sets and thread counts, layer by layer, in training steps.

    On a machine with one device its kernel sets and thread counts are compared. All must compute the
    same first, layer by layer and over whole steps. If a step takes longer than a second, all but the
    first are timed at small batch sizes only.
    """
    written = [require_output(save, COMPARISON)] if save else []
    if plot:
        written += require_drawing(plot)
    if files:
        for name, flag in given(context).items():
            if name in OF_MEASURING:
                raise ArgumentError(f"{flag} is for measuring: leave it out to compare saved files")
        result = _loaded(files)
    else:
        chosen = comparison.setups(cut(device), cut(kernels), _numbers(threads))
        for slower in dict.fromkeys(filter(None, (setup.backend.slower for setup in chosen))):
            say(f"note: {slower}")
        status = Status()
        for setup in chosen:
            setup.backend.kernels.when_compiling(status.say, status.show)
        how = model, batch_size, dtype, rounds
        result = comparison.compare(chosen, *how, status.begin, status.show, winograd, sweep)
        status.clear()
    if save:
        comparison.save(result, save)
    if as_json:
        print_json(as_plain(result))
    else:
        show(result)
        if not files and len({column.device["device"] for column in result.columns}) == 1:
            say(
                "to compare this machine with another: `cnn compare --save NAME.json` on each, then "
                "`cnn compare NAME.json OTHER.json` on one of them"
            )
    if plot:
        draw(result, plot)
    for sentence in written:
        say(sentence)


def _loaded(files: list[Path]) -> comparison.Comparison:
    """The saved comparisons as one, each file's columns under its name; a single one as it was saved."""
    if len(files) == 1:
        return comparison.load(files[0])
    stems = [path.stem for path in files]
    if len(set(map(str, files))) < len(files):
        raise ArgumentError("a file is given twice: name each saved comparison once")
    names = [printable(path.stem if stems.count(path.stem) == 1 else str(path)) for path in files]
    return comparison.merge(dict(zip(names, map(comparison.load, files), strict=True)))


def _numbers(text: str | None) -> list[int] | None:
    """As "1,2" into [1, 2]."""
    try:
        return None if text is None else [int(number) for number in text.split(",")]
    except ValueError:
        raise ArgumentError(f"--threads is {text!r}, expected numbers as in 1,2") from None
