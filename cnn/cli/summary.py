"""``cnn summary``."""

from pathlib import Path
from typing import Annotated

import typer

from backends import CpuBackend
from backends.dtypes import HALVES
from cnn import data as data_sets
from cnn import models
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Dtype, Model, given, image_shape, option
from cnn.cli.output import print_json
from cnn.data import augmentation
from cnn.inspection import summary as network_summary
from cnn.inspection.sheet import write_sheet
from cnn.saving import toml
from cnn.support.errors import ArgumentError
from cnn.support.outputs import PNG, require_output, require_suffix
from cnn.support.terminal import write_line
from cnn.training import defaults


class Described(CpuBackend):
    """Holds 16-bit arrays, with which a CPU does not compute."""

    has_halves = True

    def __init__(self) -> None:
        super().__init__("portable")
        self.name = "CUDA GPUs"


@app.command(
    epilog=examples(
        "cnn summary",
        "cnn summary --model notebook --input-shape 1,32,32 --classes 2",
        "cnn summary --model resnet20 --data cifar10",
        "cnn summary runs/lenet5-20261124-025825 --toml",
        "cnn summary --augment shift=2,flip --data mnist",
    )
)
def summary(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="The folder of a run, or a .safetensors file that describes its network; like --model RUN.",
            show_default=False,
        ),
    ] = None,
    model: Model = defaults.MODEL,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Channels, height and width of an image.",
            show_default="those of --data, of the run, or 1,28,28",
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes.", show_default="those of --data or 10")
    ] = None,
    dtype: Dtype = DEFAULT.dtype,
    augment: Annotated[str | None, option("augment")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set for whose images the model is built, or whose images --augment shows.",
            show_default=f"{DEFAULT.data} for --augment",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="The PNG file that --augment writes.", show_default="augmented.png"
        ),
    ] = None,
    as_toml: Annotated[
        bool,
        typer.Option("--toml", help="Print the layers as TOML, which you can edit and give to --model."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a model's layers: output shapes, parameters, multiply-adds, memory.

    With --augment, write a sheet of pictures instead: training images, and their changed versions in the
    first epochs.
    """
    if augment is not None:
        path = sheet or Path("augmented.png")
        _write_sheet(augmentation.parse(augment), data or DEFAULT.data, path, as_json)
        return
    if sheet is not None:
        raise ArgumentError("--sheet needs --augment: say how the images are changed, such as --augment flip")
    if source is not None and "model" in given(context):
        raise ArgumentError(f"{source} and --model are both given: leave one of them out")
    found = models.find(model if source is None else source)
    shape, count = found.input_shape or models.INPUT_SHAPE, models.CLASSES
    if data is not None and (input_shape is None or classes is None):
        train_set, _ = data_sets.load(data)
        shape, count = train_set.shape, len(train_set.classes)
    shape = shape if input_shape is None else image_shape(input_shape)
    network = found.make(count if classes is None else classes, shape)
    network.build(shape, backend=Described() if dtype in HALVES else "cpu", dtype=dtype)
    if as_toml:
        write_line(toml.write(network).rstrip("\n"))
    elif as_json:
        print_json({"layers": network_summary.rows(network), "total": network_summary.totals(network)})
    else:
        network.summary()


def _write_sheet(
    augmentations: list[augmentation.Augmentation], data: str, sheet: Path, as_json: bool
) -> None:
    require_suffix("sheet", sheet, ".png")
    written = require_output(sheet, PNG)
    train_set, _ = data_sets.load(data)
    write_sheet(train_set, augmentations, sheet)
    if as_json:
        print_json({"file": str(sheet)})
    else:
        write_line(written)
