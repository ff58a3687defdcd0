"""``cnn summary``."""

from typing import Annotated

import typer

from cnn import models
from cnn.cli.app import app, examples
from cnn.cli.options import DEFAULT, AsJson, Dtype, Model
from cnn.cli.output import print_json
from cnn.inspection import summary as network_summary
from cnn.support.errors import ArgumentError


@app.command(epilog=examples("cnn summary", "cnn summary --model notebook --input-shape 1,32,32 --classes 2"))
def summary(
    model: Model = DEFAULT.model,
    input_shape: Annotated[str, typer.Option(help="Channels, height and width of an image.")] = "1,28,28",
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
    dtype: Dtype = DEFAULT.dtype,
    as_json: AsJson = False,
) -> None:
    """Show a model's layers: output shapes, parameters, multiply-adds, memory."""
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
