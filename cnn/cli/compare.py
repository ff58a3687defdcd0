"""``cnn compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cnn import comparison
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Dtype, Model, Winograd, choices, given
from cnn.cli.output import Status, print_json, say
from cnn.comparison import scaling, scaling_table
from cnn.comparison.measure import ROUNDS
from cnn.comparison.plot import draw, require_drawing
from cnn.comparison.processes import compare_processes
from cnn.comparison.saved import as_plain
from cnn.comparison.table import show
from cnn.runs.setting import cut
from cnn.support.errors import ArgumentError
from cnn.support.files import write_json
from cnn.support.outputs import COMPARISON, require_output
from cnn.support.text import printable
from cnn.training import defaults

OF_MEASURING = (
    "model", "batch_size", "device", "kernels", "threads", "processes", "dtype", "winograd", "rounds",
    "sweep", "save",
)  # fmt: skip
OF_DEVICES = ("device", "kernels", "threads", "sweep", "plot")


@app.command(
    epilog=examples(
        "cnn compare",
        "cnn compare --device cpu,cuda --model notebook --batch-size 32",
        "cnn compare --kernels portable,signal --threads 1,2",
        "cnn compare --processes 1,2,4",
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
    processes: Annotated[
        str | None,
        typer.Option(
            help="Numbers of processes to compare on the CPU, separated by commas, as in 1,2,4. Needs MPI.",
            show_default="one process",
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
    With --processes, the time of a step on several machines is predicted too.
    """
    if files:
        _require_none(context, OF_MEASURING, "is for measuring: leave it out to compare saved files")
    elif processes is not None:
        _require_none(context, OF_DEVICES, "is for comparing devices: leave it out with --processes")
        how = model, batch_size, dtype, rounds
        _compare_processes(_numbers("--processes", processes), how, winograd, save, as_json)
        return
    written = [require_output(save, COMPARISON)] if save else []
    if plot:
        written += require_drawing(plot)
    if files:
        result = _loaded(files)
    else:
        numbers = None if threads is None else _numbers("--threads", threads)
        chosen = comparison.setups(cut(device), cut(kernels), numbers)
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


def _compare_processes(
    numbers: list[int], how: tuple[str, int, str, int], winograd: bool, save: Path | None, as_json: bool
) -> None:
    """Compare numbers of processes; ``how`` is the model, the batch size, the dtype and the rounds."""
    written = require_output(save, scaling.SAVED) if save else ""
    status = Status()
    result = compare_processes(numbers, *how, status.begin, status.show, winograd)
    status.clear()
    if save:
        write_json(save, scaling.as_plain(result))
    if as_json:
        print_json(scaling.as_plain(result))
    else:
        scaling_table.show(result)
    if save:
        say(written)


def _loaded(files: list[Path]) -> comparison.Comparison:
    """The saved comparisons as one, each file's columns under its name; a single one as it was saved."""
    if len(files) == 1:
        return comparison.load(files[0])
    stems = [path.stem for path in files]
    if len(set(map(str, files))) < len(files):
        raise ArgumentError("a file is given twice: name each saved comparison once")
    names = [printable(path.stem if stems.count(path.stem) == 1 else str(path)) for path in files]
    return comparison.merge(dict(zip(names, map(comparison.load, files), strict=True)))


def _require_none(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Raise ArgumentError if one of these options is given."""
    for name, flag in given(context).items():
        if name in names:
            raise ArgumentError(f"{flag} {why}")


def _numbers(flag: str, text: str) -> list[int]:
    """As "1,2" into [1, 2]."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ArgumentError(f"{flag} is {text!r}, expected numbers as in 1,2") from None
