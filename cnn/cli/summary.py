"""``cnn summary``."""

from pathlib import Path
from typing import Annotated

import typer

from cnn import data as data_sets
from cnn import models
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Dtype, Model, option
from cnn.cli.output import print_json
from cnn.data import augmentation
from cnn.inspection import summary as network_summary
from cnn.inspection.sheet import write_sheet
from cnn.support.errors import ArgumentError
from cnn.support.outputs import PNG, require_output
from cnn.support.terminal import write_line


@app.command(
    epilog=examples(
        "cnn summary",
        "cnn summary --model notebook --input-shape 1,32,32 --classes 2",
        "cnn summary --augment shift=2,flip --data mnist",
    )
)
def summary(
    model: Model = DEFAULT.model,
    input_shape: Annotated[str, typer.Option(help="Channels, height and width of an image.")] = "1,28,28",
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
    dtype: Dtype = DEFAULT.dtype,
    augment: Annotated[str | None, option("augment")] = None,
    data: Annotated[str, typer.Option(help="Data set whose images --augment shows.")] = DEFAULT.data,
    sheet: Annotated[Path, typer.Option(readable=False, help="The PNG file that --augment writes.")] = Path(
        "augmented.png"
    ),
    as_json: AsJson = False,
) -> None:
    """Show a model's layers: output shapes, parameters, multiply-adds, memory.

    With --augment, write a sheet of pictures instead: training images, and how they are changed in epochs.
    """
    if augment is not None:
        _write_sheet(augmentation.parse(augment), data, sheet, as_json)
        return
    try:
        shape = tuple(int(size) for size in input_shape.split(","))
    except ValueError:
        raise ArgumentError(f"--input-shape is {input_shape!r}, expected numbers as in 1,28,28") from None
    network = models.get(model, classes)
    network.build(shape, backend="cpu", dtype=dtype)
    if as_json:
        print_json({"layers": network_summary.rows(network), "total": network_summary.totals(network)})
    else:
        network.summary()


def _write_sheet(
    augmentations: list[augmentation.Augmentation], data: str, sheet: Path, as_json: bool
) -> None:
    written = require_output(sheet, PNG)
    train_set, _ = data_sets.load(data)
    write_sheet(train_set, augmentations, sheet)
    if as_json:
        print_json({"file": str(sheet)})
    else:
        write_line(written)
